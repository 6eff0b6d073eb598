"""What a Flax module of a user's own must be like is said before it is trained."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import semanticfl_jax as sfl
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Network
from tests.api.runs import CONFIG, same, tiny
from tests.federation import CLASSES


class Flat(nn.Module):
    """Logits of all pixels; what it does besides is a subclass's."""

    def also(self, x):
        return x

    @nn.compact
    def __call__(self, images, train=False):
        return nn.Dense(3)(self.also(images.reshape(len(images), -1)))


class Training(Flat):
    def __call__(self, images, training=False):
        return images


class IsTraining(Flat):
    def __call__(self, images, *, is_training):
        return images


class Deterministic(Flat):
    def __call__(self, images, deterministic=True):
        return images


class RunningAverage(Flat):
    def __call__(self, images, use_running_average=True, **others):
        return images


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Training(), r"Training.__call__ has training=, which must be called train \(.*is train\)"),
        (IsTraining(), "IsTraining.__call__ has is_training=, which must be called train"),
        (Deterministic(), r"has deterministic=, which must be called train \(.*is not train\)"),
        (RunningAverage(), "has use_running_average=, which must be called train"),
        (nn.Sequential([Deterministic(), nn.Dense(3)]), "must be called train"),
    ],
)
def test_training_is_told_by_train_alone(module, message):
    with pytest.raises(SemanticFLError, match=message):
        Network(module)


class Either(Flat):
    """As networks that other code calls, too."""

    def __call__(self, images, train=False, deterministic=None):
        return super().__call__(images)


def test_beside_train_another_name_is_the_modules_own_affair():
    assert Network(Either()).outputs((2, 2, 3)).logits.shape == (1, 3)


class Constants(Flat):
    def also(self, x):
        return x * self.variable("constants", "scale", lambda: jnp.ones(())).value


class Counts(Flat):
    def also(self, x):
        count = self.variable("counter", "n", lambda: 0)
        count.value += 1
        return x


class Half(Flat):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(3, param_dtype=jnp.bfloat16)(images.mean((1, 2)))


class DropPath(Flat):
    @nn.compact
    def __call__(self, images, train, mask=None):
        if train:
            valid = mask.astype(jnp.float32)  # there in training
            images = images * valid[:, None, None, None]
        return super().__call__(nn.Dropout(0.5, rng_collection="droppath")(images, not train))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Constants(), 'Constants has variables in the collection "constants"; a run keeps params'),
        (DropPath(), r"(?s)DropPath draws from a random stream .* all but dropout: .*droppath"),
    ],
)
def test_what_a_run_neither_keeps_nor_draws_is_refused(module, message):
    with pytest.raises(SemanticFLError, match=message):
        Network(module).variables((2, 2, 3))


def test_and_so_they_are_before_the_network_is_called():
    with pytest.raises(SemanticFLError, match='Counts has variables in the collection "counter"'):
        Network(Counts()).outputs((2, 2, 3))


def test_parameters_are_float32():
    with pytest.raises(
        SemanticFLError, match=r"Half has parameters of bfloat16; .* give its layers"
    ):
        Network(Half()).outputs((2, 2, 3))


class Sows(Flat):
    def also(self, x):
        self.sow("intermediates", "x", x)
        count = self.variable("batch_stats", "count", lambda: jnp.zeros(()))
        if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
            count.value += 1
        return nn.Dropout(0.5, deterministic=False)(x) if self.has_rng("dropout") else x


def test_what_is_sown_for_inspection_statistics_and_dropout_are_not():
    found = jax.tree.map(np.shape, Network(Sows()).variables((2, 2, 3)))
    assert set(found) == {"params", "batch_stats"} and found["batch_stats"] == {"count": ()}


class Unconditional(Flat):
    def also(self, x):
        return nn.Dropout(0.5)(x)


def test_a_layer_that_is_not_told_names_what_to_do():
    message = r"Unconditional has a layer that must be told .* give the layer deterministic=not tr"
    with pytest.raises(SemanticFLError, match=message):
        Network(Unconditional()).outputs((2, 2, 3))


class Linen(nn.Module):
    """A dense layer with batch normalisation, and a classifier."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(5, name="base")(images.reshape(len(images), -1))
        x = nn.BatchNorm(not train, name="norm")(x)
        return nn.Dense(CLASSES, name="head")(x)


class NNX(nnx.Module):
    """The same, whose layers are told by their mode."""

    def __init__(self, inputs, rngs):
        self.base = nnx.Linear(inputs, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.head = nnx.Linear(5, CLASSES, rngs=rngs)
        self.dropout = nnx.Dropout(0.0, rngs=rngs)

    def __call__(self, images):
        x = self.base(images.reshape(len(images), -1))
        return self.head(self.dropout(self.norm(x)))


class ToldNNX(NNX):
    """And by the call."""

    def __call__(self, images, train=False):
        x = self.norm(self.base(images.reshape(len(images), -1)), use_running_average=not train)
        return self.head(x)


@pytest.mark.parametrize("net", [NNX, ToldNNX])
def test_a_network_of_nnx_trains_as_the_same_one_of_linen(net):
    linen = sfl.run(CONFIG, **tiny(model=Linen()))
    begun = jax.device_get(sfl.Simulation(CONFIG, **tiny(model=Linen())).state.model.params)
    bridged = nnx.bridge.to_linen(net, 8 * 8 * 3)
    found = sfl.run(CONFIG, init_params=begun["model"], **tiny(model=bridged))
    for a, b in [(linen.params, found.params), (linen.batch_stats, found.batch_stats)]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)
    assert np.any(found.batch_stats["norm"]["mean"] != 0)
    losses = [each.history[-1]["test_loss"] for each in (linen, found)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Drops(nnx.Module):
    """Twice its inputs at random, with a mask of rows."""

    def __init__(self, stream="dropout", *, rngs):
        self.layer = nnx.Dropout(0.5, rng_collection=stream, rngs=rngs)

    def __call__(self, images, mask=None):
        return self.layer(images.reshape(len(images), -1))


def test_dropout_of_nnx_draws_in_training_alone():
    network, images = Network(nnx.bridge.to_linen(functools.partial(Drops))), jnp.ones((4, 2, 2, 3))
    assert network.name == "Drops" and network.variables((2, 2, 3)) == {}
    given = [
        network.apply({}, images, train=True, rngs={"dropout": jax.random.key(seed)}).logits
        for seed in (0, 1, 0)
    ]
    same(given[0], given[2])
    assert np.any(given[0] != given[1]) and set(np.unique(given[0])) == {0, 2}
    same(network.apply({}, images, train=False).logits, jnp.ones((4, 12)))


class TrainingNNX(NNX):
    def __call__(self, images, training=False):
        return images


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Drops(rngs=nnx.Rngs(0)), r"got Drops of NNX: give nnx.bridge.to_linen\(Drops, "),
        (nnx.bridge.to_linen(TrainingNNX), "TrainingNNX.__call__ has training=, which must be"),
        (nnx.bridge.to_linen(lambda rngs: Drops(rngs=rngs)), "must be given a class for a run"),
        (nnx.bridge.to_linen(Drops, "noise"), 'Drops has a layer .* random stream "noise"'),
    ],
)
def test_what_does_not_fit_of_nnx_is_refused(module, message):
    with pytest.raises(SemanticFLError, match=message):
        Network(module).outputs((2, 2, 3))
