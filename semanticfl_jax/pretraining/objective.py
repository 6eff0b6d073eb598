"""The losses of the noise predictor: of noise, and of features that say something of the image.

The loss is DDPM's (Ho et al. 2020, equation 14) in latents (Rombach et al. 2022), plus two terms on
the features of images without a prompt at small diffusion times. One aligns them with the text
embeddings of the classes [ours]. The other, off by default, aligns them with the features that a
frozen encoder has of the clean image: REPA (Yu et al., ICLR 2025, arXiv 2410.06940), here on
globally averaged maps, because that is what the anchors are made of [ours]. Both act through linear
heads that are thrown away. The result is a plain latent diffusion checkpoint.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.diffusion.features import add_noise
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.pretraining.config import UnetConfig
from semanticfl_jax.pretraining.text import unit


class Texts(NamedTuple):
    """The text tower's outputs: token states and pooled embeddings of prompts."""

    #: [classes, tokens, d] token states of each class's prompt.
    states: np.ndarray
    #: [classes, d] pooled embeddings of the same.
    pooled: np.ndarray
    #: [tokens, d] token states of the empty prompt.
    null: np.ndarray


class Targets(NamedTuple):
    """What the encoder says of each image: whitened features [n, dim] float32."""

    train: np.ndarray
    val: np.ndarray


def draw_times(config: UnetConfig, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw diffusion times [count] and whether a row goes without its prompt [count].

    A share of the rows has times below `small_time`, where the features are read later. There the
    image itself is in sight and the prompt matters little: most of these rows go without it, and
    learn to see. The other rows have any time, and `null_share` of them no prompt.
    """
    key_any, key_small, key_null = jax.random.split(key, 3)
    small = jnp.arange(count) < round(config.small_share * count)
    low = jax.random.randint(key_small, (count,), 0, config.small_time)
    times = jnp.where(small, low, jax.random.randint(key_any, (count,), 0, 1000))
    chance = jnp.where(small, config.small_null_share, config.null_share)
    return times, jax.random.uniform(key_null, (count,)) < chance


def alignment_loss(heads, pooled, embeddings, labels, rows, temperature: float = 0.07):
    """Return the cross-entropy of classifying maps by the cosine to classes' text embeddings.

    Args:
      heads: per map, [channels, width].
      pooled: per map, its average over space [n, channels].
      embeddings: [classes, width]: unit rows, centred before.
      labels: [n].
      rows: [n] bool, the rows that count.
      temperature: divides the cosines.
    """
    weights = rows / jnp.maximum(rows.sum(), 1)
    total = 0.0
    for name, head in heads.items():
        logits = unit(pooled[name] @ head) @ embeddings.T / temperature
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        total += (losses * weights).sum() / len(heads)
    return total


def encoder_loss(heads, pooled, targets, rows):
    """Return the squared error of the encoder's features as each map predicts them, on average.

    Args:
      heads: per map, {"kernel": [channels, dim], "bias": [dim]}.
      pooled: per map, its average over space [n, channels].
      targets: [n, dim].
      rows: [n] bool, the rows that count.
    """
    weights = rows / jnp.maximum(rows.sum(), 1)
    total = 0.0
    for name, head in heads.items():
        errors = ((pooled[name] @ head["kernel"] + head["bias"][None] - targets) ** 2).mean(1)
        total += (errors * weights).sum() / len(heads)
    return total


class Objective:
    """The losses of the noise predictor, and the heads that two of them need.

    Attributes:
      maps: the feature maps that the terms look at.
    """

    def __init__(self, config: UnetConfig, networks: Networks, texts: Texts):
        self.config, self.networks = config, networks
        self.alphas = jnp.asarray(networks.alphas_cumprod, jnp.float32)
        self.states, self.null = jnp.asarray(texts.states), jnp.asarray(texts.null)
        self.embeddings = unit(jnp.asarray(texts.pooled - texts.pooled.mean(0)))
        self.text_maps = ("mid", *(f"up_{i}" for i in range(config.levels)))
        self.text_maps = self.text_maps if config.alignment else ()
        self.encoder_maps = config.alignment_encoder_maps if config.alignment_encoder else ()
        self.maps = tuple(dict.fromkeys(self.text_maps + self.encoder_maps))

    def heads(self, params: Any, key: jax.Array) -> dict[str, Any]:
        """Draw random heads, {"text": per map, "encoder": per map}."""
        unet, dim = self.networks.unet, self.config.alignment_encoder_dim
        latents = jnp.zeros((1, unet.sample_size, unet.sample_size, unet.in_channels))
        inputs = (latents, jnp.zeros(1, jnp.int32), self.null[None], self.maps)
        _, found = jax.eval_shape(lambda params: self.networks.apply_unet(params, *inputs), params)
        channels = {name: shape.shape[-1] for name, shape in found.items()}

        def matrix(number, name, width):
            drawn = jax.random.normal(jax.random.fold_in(key, number), (channels[name], width))
            return drawn / channels[name] ** 0.5

        width, count = self.null.shape[1], len(self.text_maps)
        return {
            "text": {name: matrix(i, name, width) for i, name in enumerate(self.text_maps)},
            "encoder": {
                name: {"kernel": matrix(count + i, name, dim), "bias": jnp.zeros(dim)}
                for i, name in enumerate(self.encoder_maps)
            },
        }

    def noise(self, params, latents, times, states, key):
        """Return each row's squared error of the predicted noise [n], and the pooled maps."""
        noise = jax.random.normal(key, latents.shape)
        noised = add_noise(latents, noise, self.alphas[times][:, None, None, None])
        predicted, found = self.networks.apply_unet(params, noised, times, states, self.maps)
        pooled = {name: value.mean((1, 2)) for name, value in found.items()}
        return ((predicted - noise) ** 2).mean((1, 2, 3)), pooled

    def __call__(self, trained, latents, labels, targets, key):
        """Return the loss and its parts {name: scalar} for a batch."""
        key_times, key_noise = jax.random.split(key)
        times, null = draw_times(self.config, len(latents), key_times)
        states = jnp.where(null[:, None, None], self.null[None], self.states[labels])
        mse, pooled = self.noise(trained["unet"], latents, times, states, key_noise)
        losses = {"mse": mse.mean()}
        loss = losses["mse"]
        rows = null & (times < self.config.small_time)
        if self.text_maps:
            losses["alignment"] = alignment_loss(
                trained["heads"]["text"], pooled, self.embeddings, labels, rows
            )
            loss += self.config.alignment * losses["alignment"]
        if self.encoder_maps:
            losses["encoder"] = encoder_loss(trained["heads"]["encoder"], pooled, targets, rows)
            loss += self.config.alignment_encoder_weight * losses["encoder"]
        return loss, losses

    def validate(self, params, heads, latents, labels, targets) -> dict[str, jax.Array]:
        """Return the noise loss at even times, and the encoder's at time 150, without a prompt."""
        times = jnp.asarray(np.linspace(0, 999, len(labels)).astype(np.int32))
        mse, _ = self.noise(params, latents, times, self.states[labels], jax.random.key(0))
        found = {"val_mse": mse.mean()}
        if self.encoder_maps:
            states = jnp.broadcast_to(self.null, (len(labels), *self.null.shape))
            times = jnp.full(len(labels), 150)
            _, pooled = self.noise(params, latents, times, states, jax.random.key(1))
            rows = jnp.ones(len(labels), bool)
            found["val_encoder"] = encoder_loss(heads["encoder"], pooled, targets, rows)
        return found
