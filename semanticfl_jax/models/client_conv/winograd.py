"""3 x 3 convolutions with a quarter of the multiplications, by Winograd's minimal filtering.

Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, F(4 x 4, 3 x 3): a
tile of 4 x 4 outputs sees 6 x 6 pixels, and

    tile of y = A^T [(G kernel G^T) * (B^T pixels B)] A

where * multiplies 6 x 6 matrices number by number. That is 36 multiplications for each tile and
pair of channels; the definition needs 144. Each of the 36 is one matrix product, [tiles, C_in] by
[C_in, C_out]. A, B and G hold small constants and cost additions, which pay off with many channels.
The gradient by the kernel is G^T [sum over tiles (B^T pixels B) * (A tile of dy A^T)] G.

For float32 only. The error is about 1e-5 of the largest value, ten times that of the definition;
bfloat16 would lose too much.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

#: Rows and columns of a tile's outputs, and of the pixels that it sees.
_OUT, _IN = 4, 6
_B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
# Of rows and columns at once, [36, 9].
_G_G = np.kron(_G, _G)
_A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)

# Least channels, in and out, least tiles, and how many times fewer the products must be, which
# leaves out outputs that fill their tiles badly. Below, the additions and the kernel's share took
# longer than the products that are saved. (A step of the CNN takes 0.67 of its time, of ResNet-10
# of width 64 and 16 0.75 and 0.87; one core, jax 0.10.2.)
_CHANNELS, _TILES, _FEWER = 32, 50, 2.5

Pads = tuple[tuple[int, int], tuple[int, int]]


def is_faster(x: jax.Array, kernel: tuple[int, ...], pads: Pads) -> bool:
    """Return whether this way is to be taken, for a convolution with strides of 1: on CPUs alone.

    Accelerators choose algorithms of their own. They also round the factors of products (TF32,
    bfloat16), and Winograd's additions would multiply that error by ten.

    Args:
      x: the images, [B, H, W, C_in].
      kernel: the kernel's shape, [kh, kw, C_in, C_out].
      pads: zeros before and after the rows and the columns.
    """
    if jax.default_backend() != "cpu" or x.dtype != jnp.float32:
        return False
    if kernel[:2] != (3, 3) or min(map(min, pads)) < 0:
        return False
    height, width = _output(x, pads)
    rows, columns = _tiles(height, width)
    fewer = 9 * height * width / (_IN * _IN * rows * columns)
    enough = min(kernel[2:]) >= _CHANNELS and x.shape[0] * rows * columns >= _TILES
    return enough and fewer >= _FEWER


def convolve(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Return the convolution with strides of 1.

    Args:
      x: float32 [B, H, W, C_in].
      kernel: float32 [3, 3, C_in, C_out].
      pads: zeros before and after the rows and the columns, none of them negative.

    Returns:
      float32 [B, H', W', C_out].
    """
    batch, c_out = len(x), kernel.shape[3]
    height, width = _output(x, pads)
    rows, columns = _tiles(height, width)
    filters = jnp.matmul(_G_G, kernel.reshape(9, -1)).reshape(_IN, _IN, -1, c_out)
    found = []
    for pixels, of_row in zip(_seen(x, pads, rows, columns), filters, strict=True):
        found += _combined(_A_T, jnp.einsum("jnc,jcf->jnf", pixels, of_row))
    # The last additions as a product: as additions, XLA would join them with what comes next, and
    # do all of them anew for each pixel, at three times the cost.
    y = jnp.matmul(_A_T.astype(np.float32), jnp.stack(found).reshape(_IN, -1))
    y = y.reshape(_OUT, _OUT, batch, rows, columns, c_out).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(batch, rows * _OUT, columns * _OUT, c_out)[:, :height, :width]


def kernel_gradient(x: jax.Array, dy: jax.Array, pads: Pads) -> jax.Array:
    """Return the gradient of `convolve` by its kernel.

    Args:
      x: float32 [B, H, W, C_in].
      dy: float32 [B, H', W', C_out], the gradient by what `convolve` returns.
      pads: as there.

    Returns:
      float32 [3, 3, C_in, C_out].
    """
    height, width, c_out = dy.shape[1:]
    rows, columns = _tiles(height, width)
    dy = jnp.pad(dy, ((0, 0), (0, rows * _OUT - height), (0, columns * _OUT - width), (0, 0)))
    by_row = _combined(_A_T.T, [dy[:, row::_OUT] for row in range(_OUT)])
    found = []
    for pixels, row in zip(_seen(x, pads, rows, columns), by_row, strict=True):
        tiles = _combined(_A_T.T, [row[:, :, column::_OUT] for column in range(_OUT)])
        tiles = jnp.stack([tile.reshape(-1, c_out) for tile in tiles])
        found.append(jnp.einsum("jnc,jnf->jcf", pixels, tiles))
    products = jnp.stack(found).reshape(_IN * _IN, -1)
    return jnp.matmul(_G_G.T, products).reshape(3, 3, -1, c_out)


def _output(x: jax.Array, pads: Pads) -> tuple[int, int]:
    """Return the height and width of a convolution's output."""
    (top, bottom), (left, right) = pads
    return x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2


def _tiles(height: int, width: int) -> tuple[int, int]:
    """Return the tiles that cover so many outputs, by rows and columns."""
    return -(-height // _OUT), -(-width // _OUT)


def _seen(x: jax.Array, pads: Pads, rows: int, columns: int) -> list[jax.Array]:
    """Return B^T pixels B of all tiles, by row of the 6: [6, tiles, C_in] each."""
    (top, _), (left, _) = pads
    bottom, right = (
        tiles * _OUT + _IN - _OUT - before - length
        for tiles, before, length in zip((rows, columns), (top, left), x.shape[1:3], strict=True)
    )
    x = jnp.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    below, beside = _OUT * (rows - 1) + 1, _OUT * (columns - 1) + 1
    found = []
    for row in _combined(_B_T, [x[:, i : i + below : _OUT] for i in range(_IN)]):
        pixels = _combined(_B_T, [row[:, :, j : j + beside : _OUT] for j in range(_IN)])
        found.append(jnp.stack([part.reshape(-1, x.shape[-1]) for part in pixels]))
    return found


def _combined(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Return a matrix times a column of arrays, as additions: zeros cost nothing, ones little."""
    found = []
    for row in matrix:
        terms = [
            part if factor == 1 else -part if factor == -1 else float(factor) * part
            for factor, part in zip(row, parts, strict=True)
            if factor
        ]
        found.append(sum(terms[1:], terms[0]))
    return found
