"""What a Flax module of a user's own must be like is said before it is trained."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Network


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
