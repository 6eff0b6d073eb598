"""2-d convolution for networks that are trained client by client inside a compiled loop.

Two facts make the way a convolution is lowered decide the speed of a federated round:

- XLA's CPU backend hands a convolution to a fast library only in the form NHWC x HWIO -> NHWC. It
  rewrites other forms (all gradients) into this one at the top level of a program, but not inside
  `lax.scan` or `lax.fori_loop`, where they fall back to plain loops, some 30 times slower.
- Under `vmap` over clients every client has its own kernel, and XLA makes one grouped convolution
  of it, which is slow on CPU and GPU alike (JAX issues 12868, 13800, 26266).

So the three linear maps of a training step (forward, gradient by input, gradient by kernel) are
written out here, each with the lowering asked for:

    native     `lax.conv_general_dilated` and XLA's own gradients; grouped under vmap
    canonical  what is fast on CPU: the gradient by input is an NHWC x HWIO -> NHWC convolution,
               too, that by the kernel a sum of matrix products, patches of a few images at a time;
               3 x 3 kernels of many channels take fewer multiplications (`winograd`); under vmap a
               loop over the clients
    patches    im2col, then one matrix product; batched matrix products under vmap
    shifted    a sum over the kernel's taps of matrix products with the shifted image

All give the values of `flax.linen.Conv` up to float32 rounding. Reverse-mode differentiation of
first order only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.client_conv import winograd
from semanticfl_jax.models.client_conv.winograd import Pads

LOWERINGS = ("auto", "native", "canonical", "patches", "shifted")
_NHWC = ("NHWC", "HWIO", "NHWC")
# XLA leaves a convolution whose channels, in and out, are no more than this to another library on
# CPU, half as fast.
_NARROW = 16
# That fast library takes up to five times as long over images without any padding (jax 0.10.2), so
# that from this many rows on a superfluous one is cheaper.
_UNPADDED = 8
# Patches that a kernel's gradient is summed over at once on CPU: what its cache holds, but
# enough rows that adding up the products costs little beside them.
_BLOCK_BYTES, _BLOCK_ROWS = 1_200_000, 256

Padding = str | int


def choose_lowering(backend: str | None = None, *, vmapped: bool = False) -> str:
    """Return what "auto" stands for, unless a measurement has chosen (tuning/choose.py).

    On CPU "canonical" was the fastest in every case measured: "patches", the second, took 2.2, 1.4
    and 1.1 times as long (2 cores; ResNet-10 of width 16 and 64, batch 64; the CNN, batch 10). What
    a TPU gets was compiled for one and has not run: by its compiler's estimates "patches" takes 1.7
    to 4.3 times the cycles of "native" (v5e; docs/guides/planning.md). A device may still overturn
    it. What a GPU gets is reasoned: the vendor's convolution for one client, batched matrix
    products instead of a grouped convolution under vmap.

    Args:
      backend: as `jax.default_backend()` names it, which is also the default.
      vmapped: whether the kernel differs along a `vmap` axis.
    """
    backend = backend or jax.default_backend()
    if backend == "cpu":
        return "canonical"
    return "patches" if vmapped and backend != "tpu" else "native"


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    lowering: str = "auto",
) -> jax.Array:
    """Cross-correlate images with a kernel, as `flax.linen.Conv` and PyTorch's Conv2d do.

    Args:
      x: [B, H, W, C_in].
      kernel: [kh, kw, C_in, C_out], of the same dtype.
      strides: rows, columns.
      padding: "SAME" (Flax's rule, which pads more at the end), "VALID", or the number of zero
        rows and columns on each side (PyTorch's rule).
      lowering: one of `LOWERINGS`.

    Returns:
      [B, H', W', C_out].

    Raises:
      SemanticFLError: for a lowering or padding that does not exist.
    """
    if lowering not in LOWERINGS:
        raise SemanticFLError(f"lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}")
    size = kernel.shape[:2]
    if isinstance(padding, int):
        pads = ((padding, padding), (padding, padding))
    elif padding in ("SAME", "VALID"):
        pads = tuple(lax.padtype_to_pads(x.shape[1:3], size, strides, padding))
    else:
        raise SemanticFLError(f'padding must be "SAME", "VALID" or a whole number, got {padding!r}')
    if lowering == "auto":
        alone, vmapped = choose_lowering(), choose_lowering(vmapped=True)
    else:
        alone = vmapped = lowering
    return _conv(x, kernel, _Plan(tuple(strides), pads, alone, vmapped))


class _Plan(NamedTuple):
    """All that is static about one convolution."""

    strides: tuple[int, int]
    pads: Pads
    alone: str  # lowering outside vmap
    vmapped: str


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, plan: _Plan) -> jax.Array:
    return _lower(_forward, plan, of_kernel=True)(x, kernel)


def _conv_forward(x, kernel, plan):
    return _conv(x, kernel, plan), (x, kernel)


def _conv_backward(plan, residuals, dy):
    x, kernel = residuals
    input_gradient = functools.partial(_input_gradient, x.shape[1:3])
    dx = _lower(input_gradient, plan, of_kernel=True)(dy, kernel)
    dkernel = _lower(functools.partial(_kernel_gradient, kernel.shape[:2]), plan)(x, dy)
    return dx, dkernel


_conv.defvjp(_conv_forward, _conv_backward)


def _lower(
    linear_map: Callable[..., jax.Array], plan: _Plan, of_kernel: bool = False
) -> Callable[..., jax.Array]:
    """Return `linear_map(lhs, rhs, plan, lowering)` as a function of lhs and rhs, aware of vmap.

    `of_kernel`: lhs are images, rhs is the kernel. Images of clients that share it are one batch.
    """

    @jax.custom_batching.custom_vmap
    def function(lhs, rhs):
        return linear_map(lhs, rhs, plan, plan.alone)

    @function.def_vmap
    def vmapped(axis_size, in_batched, *operands):
        if plan.vmapped == "canonical":
            own = [x for x, batched in zip(operands, in_batched, strict=True) if batched]

            def client(own):
                rest = iter(own)
                pairs = zip(operands, in_batched, strict=True)
                return function(*[next(rest) if batched else x for x, batched in pairs])

            return lax.map(client, own), True
        if of_kernel and not in_batched[1]:
            images, kernel = operands
            y = function(images.reshape(-1, *images.shape[2:]), kernel)
            return y.reshape(axis_size, -1, *y.shape[1:]), True
        axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(lambda *both: linear_map(*both, plan, plan.vmapped), axes)(*operands), True

    return function


def _forward(
    x: jax.Array, kernel: jax.Array, plan: _Plan, lowering: str, sum_dtype: Any = jnp.float32
) -> jax.Array:
    kh, kw, _, c_out = kernel.shape
    if _pointwise(kernel, plan):
        return jnp.einsum("bhwc,cf->bhwf", _shifted(x, (0, 0), (1, 1), plan.strides), kernel[0, 0])
    if lowering == "native":
        return lax.conv_general_dilated(x, kernel, plan.strides, plan.pads, dimension_numbers=_NHWC)
    if lowering == "canonical":
        return _canonical(x, kernel, plan.strides, plan.pads)
    # x may be float32 beside a bfloat16 kernel (`_input_gradient`).
    shifted = [part.astype(kernel.dtype) for part in _patches(x, (kh, kw), plan)]
    if lowering == "patches":
        patches = jnp.concatenate(shifted, axis=-1)
        return jnp.einsum("bhwk,kf->bhwf", patches, kernel.reshape(-1, c_out))
    taps = kernel.reshape(kh * kw, -1, c_out)
    products = (
        jnp.einsum("bhwc,cf->bhwf", part, tap, preferred_element_type=sum_dtype)
        for part, tap in zip(shifted, taps, strict=True)
    )
    return functools.reduce(jnp.add, products).astype(kernel.dtype)


def _pointwise(kernel: jax.Array, plan: _Plan) -> bool:
    """Return whether the convolution is one matrix product, whatever its lowering."""
    return kernel.shape[:2] == (1, 1) and plan.pads == ((0, 0), (0, 0))


def _canonical(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    pads: Pads,
    dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Return a convolution in the one form that XLA's CPU backend hands to a fast library.

    Or by Winograd's algorithm, where that is faster.
    """

    def convolve(kernel, strides):
        return lax.conv_general_dilated(
            x, kernel, strides, pads, lhs_dilation=dilation, dimension_numbers=_NHWC
        )

    *_, c_in, c_out = kernel.shape
    if (strides, dilation) != ((1, 1), (1, 1)):
        return convolve(kernel, strides)
    if winograd.is_faster(x, kernel.shape, pads):
        return winograd.convolve(x, kernel, pads)
    rows = x.shape[1] + sum(pads[0]) - kernel.shape[0] + 1
    if not any(map(any, pads)) and rows >= _UNPADDED:
        pads = ((0, 1), (0, 0))
    columns = x.shape[2] + sum(pads[1]) - kernel.shape[1] + 1
    together = 1
    while max(c_in, together * c_out) <= _NARROW:
        together *= 2
    if columns % together:
        together = 1
    # Neighbouring columns as channels of one output: some more arithmetic, at twice the speed.
    spread = [
        jnp.pad(kernel, ((0, 0), (column, together - 1 - column), (0, 0), (0, 0)))
        for column in range(together)
    ]
    y = convolve(jnp.concatenate(spread, axis=-1), (1, together))[:, :rows]
    return y.reshape(*y.shape[:2], columns, c_out)


def _patches(x: jax.Array, size: tuple[int, int], plan: _Plan) -> list[jax.Array]:
    """Return what each tap of a kernel of `size` meets: kh kw times [B, H', W', C_in]."""
    x = jnp.pad(x, ((0, 0), *plan.pads, (0, 0)))
    return [_shifted(x, tap, size, plan.strides) for tap in np.ndindex(*size)]


def _shifted(
    x: jax.Array, tap: tuple[int, ...], size: tuple[int, int], strides: tuple[int, int]
) -> jax.Array:
    """Return the pixels of the padded images x that the kernel's `tap` meets: [B, H', W', C_in].

    A slice with strides stands behind a barrier: where a matrix product reads one of a ReLU that
    something else reads, too, as of a residual block, XLA aborts on GPUs (jax 0.10.2 and 0.11.2;
    openxla/xla issue 47381). By a reshape instead, a step takes 1.2 times the cycles on a TPU.
    """
    stop = [length - k + t + 1 for length, k, t in zip(x.shape[1:3], size, tap, strict=True)]
    x = x[:, tap[0] : stop[0] : strides[0], tap[1] : stop[1] : strides[1]]
    return x if strides == (1, 1) else lax.optimization_barrier(x)


def _input_gradient(
    size: tuple[int, int], dy: jax.Array, kernel: jax.Array, plan: _Plan, lowering: str
) -> jax.Array:
    """Return the gradient by images of `size` (H, W): dy, spread, meets the flipped kernel."""
    if lowering != "canonical" or _pointwise(kernel, plan):
        x = _like(dy, (dy.shape[0], *size, kernel.shape[2]))
        if lowering in ("patches", "shifted") and not _pointwise(kernel, plan):
            x = x.astype(jnp.float32)  # in which a pixel's gradients by all taps are added up
        # In float32, the sum over taps would make all its products, transposed, float32, too.
        transpose = jax.linear_transpose(lambda x: _forward(x, kernel, plan, lowering, None), x)
        return transpose(dy)[0].astype(dy.dtype)
    axes = zip(kernel.shape[:2], size, dy.shape[1:3], plan.strides, plan.pads, strict=True)
    pads = [
        # From the first to the last position of a tap it is (out - 1) * stride + 1 pixels.
        (k - 1 - before, length + before - ((out - 1) * stride + 1))
        for k, length, out, stride, (before, _) in axes
    ]
    return _canonical(dy, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), (1, 1), pads, plan.strides)


def _kernel_gradient(
    size: tuple[int, int], x: jax.Array, dy: jax.Array, plan: _Plan, lowering: str
) -> jax.Array:
    """Return the gradient by the kernel of `size` (kh, kw): patches of x meet dy everywhere."""
    c_in, c_out = x.shape[3], dy.shape[3]
    if lowering != "canonical":
        kernel = _like(dy, (*size, c_in, c_out))
        return jax.linear_transpose(lambda k: _forward(x, k, plan, lowering, None), kernel)(dy)[0]
    if plan.strides == (1, 1) and winograd.is_faster(x, (*size, c_in, c_out), plan.pads):
        return winograd.kernel_gradient(x, dy, plan.pads)
    # As a convolution of the canonical form, with the batch as input channels, it would need both
    # transposed, and took 1.1 to 11 times as long in all but one layer (ResNet-10 of width 16, 64).
    length = math.prod(size) * c_in
    rows = max(_BLOCK_ROWS, _BLOCK_BYTES // (length * x.dtype.itemsize))
    most = max(1, min(rows // math.prod(dy.shape[1:3]), x.shape[0]))
    even = (n for n in range(most, most // 2, -1) if x.shape[0] % n == 0)
    images = next(even, most)
    blocks = -(-x.shape[0] // images)

    if x.shape[0] % images:
        more = ((0, blocks * images - x.shape[0]), (0, 0), (0, 0), (0, 0))
        x, dy = jnp.pad(x, more), jnp.pad(dy, more)

    def add_block(block, carry):
        total, patches = carry
        part, part_dy = (lax.dynamic_slice_in_dim(a, block * images, images) for a in (x, dy))
        # Each tap is copied to its place once; to concatenate them would copy them twice.
        for tap, pixels in enumerate(_patches(part, size, plan)):
            patches = lax.dynamic_update_slice_in_dim(patches, pixels, tap * c_in, axis=3)
        products = jnp.matmul(
            part_dy.reshape(-1, c_out).T,
            patches.reshape(-1, length),
            preferred_element_type=jnp.float32,
        )
        return total + products, patches

    total = 0 * _like(dy, (c_out, length)).astype(jnp.float32)
    patches = 0 * _like(x, (images, *dy.shape[1:3], length))
    total, _ = lax.fori_loop(0, blocks, add_block, (total, patches))
    return total.T.reshape(*size, c_in, c_out).astype(dy.dtype)


def _like(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return an array whose type alone counts: x's dtype, varying over the devices as x does."""
    return jnp.broadcast_to(x.ravel()[0], shape)
