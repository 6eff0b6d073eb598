import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from semanticfl_jax.models.client_conv import Conv, choose_lowering, conv, operations

EXPLICIT = ("native", "canonical", "patches", "shifted")
# kernel, strides, padding, image size: odd sizes leave rows that no window reaches.
CASES = (
    ((3, 3), (1, 1), "SAME", (6, 5)),
    ((3, 3), (2, 2), "SAME", (6, 7)),
    ((3, 3), (2, 2), 1, (6, 6)),
    ((3, 3), (1, 1), "VALID", (5, 6)),
    ((3, 3), (2, 2), "VALID", (6, 5)),
    ((3, 2), (1, 2), 2, (4, 5)),
    ((1, 1), (2, 2), 0, (5, 6)),
    ((1, 1), (2, 2), 1, (4, 4)),
)


def close(actual, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), actual, expected
    )


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numpy_conv(x, kernel, strides, padding):
    """Convolution by its definition, one output pixel at a time; integer padding."""
    kh, kw, _, c_out = kernel.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))).astype(np.float64)
    height = (x.shape[1] - kh) // strides[0] + 1
    width = (x.shape[2] - kw) // strides[1] + 1
    y = np.zeros((len(x), height, width, c_out))
    for i, j in np.ndindex(height, width):
        window = x[:, i * strides[0] :, j * strides[1] :][:, :kh, :kw]
        y[:, i, j] = np.tensordot(window, kernel, 3)
    return y


@pytest.mark.parametrize("lowering", EXPLICIT)
@pytest.mark.parametrize(("size", "strides", "padding", "image"), CASES)
def test_values_and_gradients_equal_flax(size, strides, padding, image, lowering):
    x = draw(0, 2, *image, 3)
    kernel = draw(1, *size, 3, 4)
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    layer = nn.Conv(4, size, strides, pads, use_bias=False)

    def reference(x, kernel):
        return layer.apply({"params": {"kernel": kernel}}, x)

    @jax.jit
    def both(x, kernel, dy):
        ours = functools.partial(conv, strides=strides, padding=padding, lowering=lowering)
        y, pullback = jax.vjp(ours, x, kernel)
        expected, reference_pullback = jax.vjp(reference, x, kernel)
        return (y, *pullback(dy)), (expected, *reference_pullback(dy))

    shape = jax.eval_shape(reference, x, kernel).shape
    close(*both(x, kernel, draw(2, *shape)))


@pytest.mark.parametrize(("padding", "strides"), [(1, (1, 1)), (1, (2, 2)), (0, (2, 1))])
def test_integer_padding_is_symmetric(padding, strides):
    x, kernel = draw(0, 2, 6, 6, 3), draw(1, 3, 3, 3, 4)
    expected = numpy_conv(x, kernel, strides, padding)
    close(conv(x, kernel, strides, padding, "canonical"), expected.astype(np.float32))


def loss(lowering, kernel, x):
    y = conv(jnp.tanh(x), kernel, (2, 2), 1, lowering)
    return jnp.sum(jnp.square(conv(y, jnp.swapaxes(kernel, 2, 3), lowering=lowering)))


@pytest.fixture(scope="module")
def clients():
    """Gradients of `loss` for three clients, each with its own kernel, one plain call a client."""
    kernels, images = 0.3 * draw(0, 3, 3, 3, 2, 4), draw(1, 3, 2, 5, 6, 2)
    gradient = jax.jit(jax.grad(functools.partial(loss, "native"), (0, 1)))
    gradients = [gradient(*client) for client in zip(kernels, images, strict=True)]
    return kernels, images, jax.tree.map(lambda *parts: np.stack(parts), *gradients)


@pytest.mark.parametrize("lowering", [*EXPLICIT, "auto"])
def test_gradients_of_clients_under_vmap_and_in_a_loop(clients, lowering):
    kernels, images, expected = clients
    gradient = jax.grad(functools.partial(loss, lowering), (0, 1))
    close(jax.jit(jax.vmap(gradient))(kernels, images), expected)
    close(
        jax.jit(lambda *data: lax.map(lambda one: gradient(*one), data))(kernels, images), expected
    )


def test_gradients_under_vmap_with_one_shared_kernel(clients):
    kernels, images, _ = clients

    @jax.jit
    def gradients(kernel, images):
        by_lowering = {}
        for lowering in ("native", "auto", "patches"):
            gradient = jax.grad(functools.partial(loss, lowering), (0, 1))
            by_lowering[lowering] = jax.vmap(gradient, (None, 0))(kernel, images)
        return by_lowering

    found = gradients(kernels[0], images)
    close(found["auto"], found["native"])
    close(found["patches"], found["native"])


@pytest.mark.parametrize("lowering", ["native", "patches", "shifted"])
def test_images_that_meet_one_kernel_are_one_batch(clients, lowering):
    kernels, images, _ = clients

    def of_images(kernel, images):
        forward = functools.partial(conv, kernel=kernel, padding=1, lowering=lowering)
        y, pullback = jax.vjp(forward, images)
        return pullback(y)

    program = jax.jit(jax.vmap(of_images, (None, 0))).lower(kernels[0], images).compile().as_text()
    assert program.count(" convolution(") == (2 if lowering == "native" else 0)
    assert "group_count" not in program
    # Nor is there a copy of the kernel for each client.
    assert "f32[3,3,2,4]" in program and "f32[3,3,3,2,4]" not in program


def test_gradients_inside_shard_map(clients):
    kernels, images, expected = clients
    mesh = jax.make_mesh((3,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("clients")
    gradient = jax.vmap(jax.grad(functools.partial(loss, "auto"), (0, 1)))
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    close(jax.jit(sharded)(kernels, images), expected)


def convolutions(function, *args):
    """Parameters of all convolutions in a function's program, nested loops included."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                yield equation.params
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
            ):
                if hasattr(inner, "eqns"):
                    yield from walk(getattr(inner, "jaxpr", inner))

    return list(walk(jax.make_jaxpr(function)(*args).jaxpr))


def test_cpu_convolutions_have_the_one_fast_form(clients):
    kernels, images, _ = clients
    gradient = jax.grad(functools.partial(loss, "canonical"), (0, 1))
    found = convolutions(jax.vmap(gradient), kernels, images)
    nhwc, hwio = (0, 3, 1, 2), (3, 2, 0, 1)
    # For each of the two: forward, and gradient by input. That by the kernel is a matrix product.
    assert len(found) == 4
    for params in found:
        numbers = params["dimension_numbers"]
        assert (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (nhwc, hwio, nhwc)
        assert params["feature_group_count"] == params["batch_group_count"] == 1


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # a TPU's compiler takes them as they are
def test_auto_never_groups_convolutions_under_vmap(clients, monkeypatch, backend):
    kernels, images, expected = clients
    monkeypatch.setattr(operations.jax, "default_backend", lambda: backend)
    gradient = jax.grad(functools.partial(loss, "auto"), (0, 1))
    count = 4 if backend == "cpu" else 6
    assert len(convolutions(gradient, kernels[0], images[0])) == count
    many = convolutions(jax.vmap(gradient), kernels, images)
    assert all(params["feature_group_count"] == 1 for params in many)
    assert all(params["batch_group_count"] == 1 for params in many)
    assert len(many) == (count if backend == "cpu" else 0)
    # A client's own kernel for several batches of its images.
    nested = convolutions(jax.vmap(jax.vmap(gradient, (None, 0))), kernels, images[:, None])
    assert all(params["feature_group_count"] == 1 for params in nested)
    close(jax.jit(jax.vmap(gradient))(kernels, images), expected)


def assert_canonical_equals_native(x, kernel, **options):
    def total(lowering, x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel, lowering=lowering, **options)))

    results = [
        jax.jit(jax.value_and_grad(functools.partial(total, lowering), (0, 1)))(x, kernel)
        for lowering in ("canonical", "native")
    ]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *results)


# Up to 16 channels, columns are computed together where they are a multiple of so many.
@pytest.mark.parametrize("columns", [5, 8])
@pytest.mark.parametrize(
    ("c_in", "c_out"), [(3, 16), (4, 17), (12, 16), (13, 8), (16, 16), (16, 17), (3, 3)]
)
def test_narrow_convolutions_have_the_same_values_on_cpu(c_in, c_out, columns):
    assert_canonical_equals_native(
        draw(0, 2, 6, columns, c_in), draw(1, 3, 3, c_in, c_out), padding=1
    )


@pytest.mark.parametrize("c_out", [3, 20])
@pytest.mark.parametrize(("rows", "pads"), [(9, ((0, 0), (0, 0))), (10, ((0, 1), (0, 0)))])
def test_images_without_padding_get_a_row_that_is_cut_off_again(rows, pads, c_out):
    x, kernel = draw(0, 2, rows, 10, 3), draw(1, 3, 3, 3, c_out)
    assert_canonical_equals_native(x, kernel, padding="VALID")
    function = functools.partial(conv, padding="VALID", lowering="canonical")
    assert [params["padding"] for params in convolutions(function, x, kernel)] == [pads]


@pytest.mark.parametrize("batch", [1, 6, 7])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_kernel_gradients_are_summed_over_blocks_of_images(monkeypatch, batch, strides):
    # Three images, or two of 6; the third block of 7 lacks two of its three.
    monkeypatch.setattr(operations, "_BLOCK_BYTES", 0)
    monkeypatch.setattr(operations, "_BLOCK_ROWS", 3 * 30 // strides[0])
    x, kernel = draw(0, batch, 6, 5, 3), draw(1, 3, 3, 3, 4)
    loops = str(
        jax.make_jaxpr(jax.grad(lambda k: jnp.sum(conv(x, k, strides, 1, "canonical"))))(kernel)
    )
    assert ("length=3" in loops) == (batch == 7), loops
    assert_canonical_equals_native(x, kernel, strides=strides, padding=1)


def test_kernel_gradients_of_bfloat16_are_summed_in_float32(monkeypatch):
    monkeypatch.setattr(operations, "_BLOCK_BYTES", 0)
    monkeypatch.setattr(operations, "_BLOCK_ROWS", 16)
    # 512 blocks that add 16 each: from 4096 on, bfloat16 has only every 32nd number.
    x, kernel = jnp.ones((512, 4, 4, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    gradient = jax.grad(lambda k: jnp.sum(conv(x, k, lowering="canonical").astype(jnp.float32)))
    assert float(gradient(kernel)[0, 0, 0, 0]) == 512 * 16


@pytest.mark.parametrize("lowering", EXPLICIT)
def test_taps_of_bfloat16_are_summed_in_float32(lowering):
    # From 256 on bfloat16 has only every second number: the last four ones would be lost.
    taps = jnp.ones((3, 3, 1, 1), jnp.bfloat16).at[1, 1].set(256)
    forward = functools.partial(conv, kernel=taps, padding=1, lowering=lowering)
    y, pullback = jax.vjp(forward, jnp.ones((1, 5, 5, 1), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16 and float(y[0, 2, 2, 0]) == 264
    (dx,) = pullback(jnp.ones_like(y))
    assert dx.dtype == jnp.bfloat16 and float(dx[0, 2, 2, 0]) == 264


def test_choose_lowering():
    assert choose_lowering() == choose_lowering("cpu", vmapped=True) == "canonical"
    for backend in ("gpu", "tpu"):
        assert choose_lowering(backend) == "native"
    assert choose_lowering("tpu", vmapped=True) == "native"
    assert choose_lowering("gpu", vmapped=True) == "patches"


def test_layer_has_the_parameters_of_flax_and_its_values():
    x = draw(0, 2, 5, 5, 3)
    options = {"strides": (2, 2), "padding": "VALID", "use_bias": True}
    reference = nn.Conv(4, (3, 3), **options)
    variables = reference.init(jax.random.key(0), x)
    variables["params"]["bias"] = draw(1, 4)
    layer = Conv(4, (3, 3), **options)
    ours = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, variables)
    close(layer.apply(variables, x), reference.apply(variables, x))
    half = Conv(4, (3, 3), **options, dtype=jnp.bfloat16)
    assert half.apply(variables, x).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowering": "fast"}, "lowering must be one of auto, native, canonical, patches, shifted"),
        ({"padding": "same"}, 'padding must be "SAME", "VALID" or a whole number'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        conv(draw(0, 1, 4, 4, 1), draw(1, 3, 3, 1, 1), **options)


@pytest.mark.parametrize(("size", "whole"), [((1, 1), 1), ((3, 3), 3)])
def test_a_number_stands_for_rows_and_columns(size, whole):
    x = jnp.asarray(draw(0, 2, 6, 6, 3))
    both, number = Conv(4, size, (2, 2)), Conv(4, kernel_size=whole, strides=2)
    variables = both.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, number.init(jax.random.key(0), x)) == jax.tree.map(
        jnp.shape, variables
    )
    close(number.apply(variables, x), both.apply(variables, x))
