"""A user's module: a model, an algorithm, a data set, a partition and a task of their own."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import semanticfl_jax as sfl
from semanticfl_jax.tasks.classification import classification


@dataclasses.dataclass(frozen=True)
class ViTSettings:
    """Settings of the model."""

    depth: int = 1
    width: int = 16


class ViT(nn.Module):
    """Patches of 4x4 pixels, attention, and the mean of the tokens."""

    num_classes: int
    depth: int = 1
    width: int = 16

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(self.width, (4, 4), strides=(4, 4))(images)
        x = x.reshape(x.shape[0], -1, self.width)
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:])[None]
        for _ in range(self.depth):
            y = nn.LayerNorm()(x)
            x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y)
            y = nn.LayerNorm()(x)
            x = x + nn.Dense(self.width)(nn.gelu(nn.Dense(2 * self.width)(y)))
        return nn.Dense(self.num_classes)(nn.LayerNorm()(x).mean(axis=1))


@sfl.register_model("own_vit", settings=ViTSettings, about="A small vision transformer")
def own_vit(settings, context):
    return ViT(context.num_classes, settings.depth, settings.width)


@dataclasses.dataclass(frozen=True)
class EntropySettings:
    """Settings of the algorithm."""

    weight: float = 0.1
    step: float = 0.5


def confidence_penalty(weight, step):
    """FedAvg with a penalty on confident predictions, whose server takes part of a step."""

    def loss(inputs):
        logs = jax.nn.log_softmax(inputs.outputs.logits)
        entropy = -jnp.sum(jnp.exp(logs) * logs, axis=-1)
        return -weight * jnp.sum(entropy * inputs.mask) / jnp.maximum(inputs.mask.sum(), 1)

    def update(state, params, aggregate):
        return jax.tree.map(lambda x, d: x + step * d, params, aggregate.update), state

    term = sfl.LossTerm("confidence", loss)
    return sfl.Algorithm("own_entropy", sfl.ServerRule(update), terms=(term,))


@sfl.register_algorithm("own_entropy", settings=EntropySettings, about="Penalises confidence")
def own_entropy(settings, context):
    del context
    return confidence_penalty(settings.weight, settings.step)


@dataclasses.dataclass(frozen=True)
class StripesSettings:
    """Settings of the data set."""

    noise: float = 20.0


@sfl.register_dataset("own_stripes", settings=StripesSettings, about="Stripes of two directions")
def own_stripes(settings, context):
    del context
    return stripes(noise=settings.noise)


def stripes(train=48, test=20, noise=20.0):
    """Two classes of 8x8 pixels, with noise of this standard deviation."""
    rng = np.random.default_rng(0)

    def split(count):
        labels = np.arange(count) % 2
        rows = np.where(np.arange(8) % 4 < 2, 200, 50)[:, None] * np.ones((8, 8))
        images = np.where(labels[:, None, None], rows, rows.T) + rng.normal(0, noise, (count, 8, 8))
        return np.clip(images, 0, 255).astype(np.uint8), labels

    return sfl.ImageDataset.from_arrays(*split(train), *split(test), ["rows", "columns"])


@sfl.register_partition("own_halves", about="The first half to one client, the rest to others")
def own_halves(settings, context):
    del settings
    half, rest = np.array_split(context.rng.permutation(len(context.groups)), 2)
    return [half, *np.array_split(rest, context.num_clients - 1)]


@dataclasses.dataclass(frozen=True)
class SmoothSettings:
    """Settings of the task."""

    epsilon: float = 0.1


@sfl.register_task("own_smoothing", settings=SmoothSettings, about="Label smoothing")
def own_smoothing(settings, context):
    classes = context.num_labels

    def loss(logits, labels):
        smooth = (1 - settings.epsilon) * jax.nn.one_hot(labels, classes)
        return -jnp.sum((smooth + settings.epsilon / classes) * jax.nn.log_softmax(logits), axis=-1)

    return dataclasses.replace(classification(None, context), name="own_smoothing", loss=loss)
