import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.networks import create_model

WIDTH, CLASSES, BATCH = 4, 5, 3


@functools.cache
def network(norm):
    """Model, variables with every scale, bias and statistic away from its initial value, images."""
    model = create_model("resnet10", CLASSES, width=WIDTH, norm=norm)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((BATCH, 16, 16, 3)).astype(np.float32)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = jax.tree.map(
        lambda leaf: leaf + rng.uniform(0, 0.3, leaf.shape).astype(np.float32),
        dict(init(jax.random.key(0), images)),
    )
    return model, variables, images


def numpy_conv(x, kernel, stride):
    padding = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows[:, ::stride, ::stride], kernel)


def numpy_norm(norm, train, x, params, stats):
    if norm == "group":
        grouped = x.reshape(*x.shape[:3], 2, -1)
        mean, var = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
        x = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
        params = params["norm"]
    else:
        mean, var = (
            (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (stats["mean"], stats["var"])
        )
        x = (x - mean) / np.sqrt(var + 1e-5)
    return x * params["scale"] + params["bias"]


def numpy_resnet(norm, train, variables, images):
    """The whole network in float64, written from its description."""
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    params, stats = variables["params"], variables.get("batch_stats")

    def layer(x, block, conv, norm_name, stride=1):
        own, statistics = (params[block], stats and stats[block]) if block else (params, stats)
        x = numpy_conv(x, own[conv]["kernel"], stride)
        statistics = statistics and statistics[norm_name]
        return numpy_norm(norm, train, x, own[norm_name], statistics)

    x = layer(images.astype(np.float64), None, "stem", "stem_norm")
    levels = [x.mean((1, 2))]
    x = np.maximum(x, 0)
    for block, stride in {"block_1": 1, "block_2": 2, "block_3": 2, "block_4": 2}.items():
        y = np.maximum(layer(x, block, "conv_1", "norm_1", stride), 0)
        y = layer(y, block, "conv_2", "norm_2")
        if block != "block_1":
            x = layer(x, block, "shortcut", "shortcut_norm", stride)
        levels.append((x + y).mean((1, 2)))
        x = np.maximum(x + y, 0)
    features = x.mean((1, 2))
    logits = features @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    return logits, features, levels


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_network_equals_numpy(norm, train):
    model, variables, images = network(norm)
    apply = jax.jit(functools.partial(model.apply, train=train, mutable=["batch_stats"]))
    outputs, _ = apply(variables, images)
    logits, features, levels = numpy_resnet(norm, train, variables, images)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)
    for level, expected in zip(outputs.levels, levels, strict=True):
        np.testing.assert_allclose(level, expected, rtol=1e-4, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def training_step(norm, variables, images, mask):
    """Logits of valid rows, new statistics, and gradients of a loss over valid rows."""
    model = network(norm)[0]

    def loss(params):
        outputs, new = model.apply(
            {**variables, "params": params}, images, train=True, mask=mask, mutable=["batch_stats"]
        )
        target = jnp.arange(CLASSES * BATCH, dtype=jnp.float32).reshape(BATCH, CLASSES) / 10
        error = jnp.square(outputs.logits[:BATCH] - target)
        return jnp.sum(error) / BATCH, (outputs.logits[:BATCH], new)

    gradients, aux = jax.grad(loss, has_aux=True)(variables["params"])
    return gradients, aux


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_padded_rows_change_nothing(norm):
    _, variables, images = network(norm)
    padding = 7 * np.random.default_rng(1).standard_normal((2, *images.shape[1:])).astype(
        np.float32
    )
    padded = np.concatenate([images, padding])
    expected = training_step(norm, variables, images, None)
    actual = training_step(norm, variables, padded, np.arange(BATCH + 2) < BATCH)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), actual, expected
    )


def test_initialisation_is_uniform_with_bound_one_over_sqrt_fan_in():
    model = create_model("resnet10", 50, width=16)
    params = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), jnp.zeros((1, 8, 8, 3))
    )["params"]
    for leaf, fan_in in (
        (params["block_4"]["conv_2"]["kernel"], 9 * 128),
        (params["block_4"]["shortcut"]["kernel"], 64),
        (params["classifier"]["kernel"], 128),
    ):
        assert float(jnp.max(jnp.abs(leaf))) <= fan_in**-0.5
        assert float(jnp.std(leaf)) == pytest.approx((3 * fan_in) ** -0.5, rel=0.05)
    bias = jnp.abs(params["classifier"]["bias"])
    assert 0.5 * 128**-0.5 < float(jnp.max(bias)) <= 128**-0.5
