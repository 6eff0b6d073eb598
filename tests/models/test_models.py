import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.models import Network
from semanticfl_jax.models.cnn import _max_pool
from semanticfl_jax.registry import MODELS
from tests.built_in import built_in
from tests.models.networks import create_model


def variable_shapes(model, size=32):
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "num_classes", "norm", "parameters"),
    [
        ("resnet10", 10, "batch", 4_903_242),
        ("resnet10", 100, "batch", 4_949_412),
        ("resnet10", 200, "group", 5_000_712),
        ("cnn", 10, "batch", 1_626_442),
    ],
)
def test_parameter_counts(name, num_classes, norm, parameters):
    shapes = variable_shapes(create_model(name, num_classes, norm=norm))
    assert count(shapes["params"]) == parameters
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    assert ("batch_stats" in shapes) == (name == "resnet10" and norm == "batch")


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", sorted(built_in(MODELS)))
def test_outputs_have_the_announced_shapes(name, size):
    model = create_model(name, 7, width=16)
    variables = variable_shapes(model, size)
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    outputs = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
    assert outputs.logits.shape == (3, 7)
    if name == "linear":  # nothing lies between the pixels and the logits
        assert outputs.features is None and not outputs.levels
        return
    assert outputs.features.shape == (3, model.feature_dim)
    assert model.feature_dim == {"resnet10": 128, "cnn": 128}[name]
    channels = {"resnet10": [16, 16, 32, 64, 128], "cnn": [32, 64, 128]}[name]
    assert [level.shape for level in outputs.levels] == [(3, c) for c in channels]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("resnet18", 10), "name must be one of resnet10, cnn"),
        (lambda: create_model("resnet10", 10, norm="layer"), "norm must be one of batch, group"),
        (lambda: create_model("cnn", 10, lowering="fast"), "conv must be one of auto, native"),
        (lambda: create_model("resnet10", 10, width=3, norm="group"), "multiple of 2"),
        (lambda: create_model("cnn", 10, precision="half"), "must be one of float32, bfloat16"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cnn_equals_numpy():
    model = create_model("cnn", 3)
    images = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), images, train=False)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape), variables["params"]
    )
    x = images.astype(np.float64)
    for layer in (params["conv_1"], params["conv_2"]):
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
        x = np.einsum("bhwcij,ijcf->bhwf", windows, layer["kernel"]) + layer["bias"]
        x = np.maximum(x, 0)
    x = x[:, :4, :4].reshape(2, 2, 2, 2, 2, 64).max((2, 4)).reshape(2, -1)
    features = np.maximum(x @ params["dense"]["kernel"] + params["dense"]["bias"], 0)
    logits = features @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), params)
    outputs = model.apply({"params": params}, images, train=False)
    np.testing.assert_allclose(outputs.features, features, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(outputs.logits, logits, rtol=1e-4, atol=1e-4)


def test_maxima_of_squares_give_their_gradient_to_the_first_of_equals():
    # Few values, so that many are equal; the last row and column belong to no square.
    x = np.random.default_rng(0).integers(0, 3, (2, 5, 7, 4)).astype(np.float32)
    given = np.random.default_rng(1).standard_normal((2, 2, 3, 4)).astype(np.float32)
    maxima, gradient = np.zeros_like(given), np.zeros_like(x)
    for i, row, column, c in np.ndindex(given.shape):
        square = x[i, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, c]
        down, right = np.unravel_index(square.argmax(), (2, 2))
        maxima[i, row, column, c] = square.max()
        gradient[i, 2 * row + down, 2 * column + right, c] = given[i, row, column, c]
    found, pullback = jax.vjp(_max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(found, maxima)
    np.testing.assert_array_equal(pullback(jnp.asarray(given))[0], gradient)


def test_cnn_dropout_acts_in_training_only():
    model = create_model("cnn", 3)
    images = np.ones((2, 8, 8, 3), np.float32)
    variables = model.init(jax.random.key(0), images, train=False)

    def logits(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(model.apply(variables, images, train=train, rngs=rngs).logits)

    assert not np.allclose(logits(0, True), logits(1, True))
    assert np.array_equal(logits(0, False), logits(1, False))


def test_cnn_drops_a_quarter_before_its_dense_layer_and_half_after_it():
    model = create_model("cnn", 3)
    images = np.ones((400, 6, 6, 3), np.float32)
    params = model.init(jax.random.key(0), images, train=False)["params"]
    # The second convolution gives ones, of which all that follows takes means.
    kernel = jnp.zeros_like(params["conv_2"]["kernel"])
    params = {
        **params,
        "conv_2": {"kernel": kernel, "bias": jnp.ones(64)},
        "dense": {"kernel": jnp.full((64, 128), 1 / 64), "bias": jnp.zeros(128)},
        "classifier": {"kernel": jnp.full((128, 3), 1 / 128), "bias": jnp.zeros(3)},
    }
    rngs = {"dropout": jax.random.key(1)}
    outputs = model.apply({"params": params}, images, train=True, rngs=rngs)
    first = np.asarray(outputs.features[:, 0])
    second = np.asarray(outputs.logits[:, 0]) / first
    for mean, units, share in ((first, 64, 0.75), (second, 128, 0.5)):
        kept = units * share * mean  # what is left is larger, so that the mean stays 1
        np.testing.assert_allclose(kept, np.round(kept), atol=1e-3)
        assert kept.mean() == pytest.approx(units * share, rel=0.02)
        assert kept.std() == pytest.approx(np.sqrt(units * share * (1 - share)), rel=0.15)


def test_cnn_initialisation_is_glorot_uniform():
    variables = create_model("cnn", 10).init(
        jax.random.key(0), jnp.zeros((1, 12, 12, 3)), train=False
    )
    for name, fans in {"conv_2": 9 * 32 + 9 * 64, "dense": 1024 + 128}.items():
        kernel = variables["params"][name]["kernel"]
        bound = (6 / fans) ** 0.5
        assert 0.98 * bound < float(jnp.max(jnp.abs(kernel))) <= bound
        assert float(jnp.std(kernel)) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not np.any(variables["params"][name]["bias"])


class First(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return jnp.where(train, 1.0, 0.0) * jnp.ones((len(x), 3))


def test_a_sequence_is_called_as_its_first_layer_is():
    flat = Network(nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(4)]))
    assert flat.outputs((8, 8, 3)).logits.shape == (1, 4)
    told = Network(nn.Sequential([nn.Sequential([First()]), nn.relu]))
    for train in (True, False):
        outputs = told.apply({}, jnp.zeros((2, 8, 8, 3)), train=train)
        np.testing.assert_array_equal(outputs.logits, np.full((2, 3), float(train)))


class Told(nn.Sequential):
    def __call__(self, x, *, train):
        return jnp.full((len(x), 3), jnp.where(train, 1.0, 0.0))


def test_other_sequences_are_called_as_they_can_be():
    images, mask = jnp.zeros((4, 8, 8, 3)), jnp.ones(4, bool)
    flat = operator.methodcaller("reshape", 4, -1)
    for layers in ([nn.LayerNorm(), flat, nn.Dense(3)], [flat, nn.Dense(3)]):
        network = Network(nn.Sequential(layers))  # whose mask, or signature, is none of ours
        variables = network.init(jax.random.key(0), images)
        assert network.apply(variables, images, train=True, mask=mask).logits.shape == (4, 3)
    outputs = Network(Told([])).apply({}, images, train=True, mask=mask)
    np.testing.assert_array_equal(outputs.logits, np.ones((4, 3)))
