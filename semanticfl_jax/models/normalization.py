"""Normalisation layers for batches whose padded rows must not count.

Both compute in float32 and return the type of what they are given: statistics of bfloat16
activations are sums over thousands of pixels, which bfloat16 could not hold.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NORMS = ("batch", "group")

_PIXELS = (0, 1, 2)  # batch, rows, columns


class BatchNorm(nn.Module):
    """Batch normalisation over the pixels of the valid rows (Ioffe and Szegedy, ICML 2015).

    In training a channel is normalised with the mean and the biased variance of the valid rows. The
    running statistics follow them with momentum 0.9, the variance in its unbiased form: PyTorch's
    rule, because the protocol's reference results come from PyTorch; Flax uses the biased one. A
    batch without valid rows leaves them as they are.

    Parameters: "scale" and "bias" [C]. Statistics, in "batch_stats": "mean" and "var" [C]. The
    first gradient is written out, which saves several passes over memory.

    Attributes:
      momentum: weight of the old running statistics in an update.
      epsilon: added to the variance.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise x.

        Args:
          x: float32 or bfloat16 [B, H, W, C].
          train: use (and follow) the batch's statistics, not the running ones.
          mask: bool [B], False for padded rows; None when all are valid.

        Returns:
          [B, H, W, C] of x's type; padded rows are finite and mean nothing.
        """
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train:
            factor = scale * lax.rsqrt(running_var.value + self.epsilon)
            centred = x.astype(jnp.float32) - running_mean.value[None, None, None]
            y = centred * factor[None, None, None] + bias[None, None, None]
            return y.astype(x.dtype)
        valid = jnp.ones(x.shape[:1]) if mask is None else mask.astype(jnp.float32)
        pixels = jnp.sum(valid) * (x.shape[1] * x.shape[2])
        weight = (valid / jnp.maximum(pixels, 1.0))[:, None, None, None]
        mean, var = _statistics(lax.stop_gradient(x).astype(jnp.float32), weight)
        if not self.is_initializing():
            momentum = jnp.where(pixels > 0, self.momentum, 1.0)
            unbiased = var * (pixels / jnp.maximum(pixels - 1.0, 1.0))
            running_mean.value = momentum * running_mean.value + (1 - momentum) * mean
            running_var.value = momentum * running_var.value + (1 - momentum) * unbiased
        inverse = lax.rsqrt(var + self.epsilon)
        return _normalize(x, scale, bias, mean, inverse, weight)


def _statistics(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance [C] of x [B, H, W, C]; weight [B, 1, 1, 1] is 1 / pixels or 0."""

    def weighted(rows):
        # Rows are summed first: a weight for each pixel would be one more array to read.
        return jnp.sum(jnp.sum(rows, (1, 2)) * weight[:, 0, 0], 0)

    mean = weighted(x)
    # Two passes: E[x^2] - E[x]^2 loses digits where the mean is large.
    return mean, weighted(jnp.square(x - mean[None, None, None]))


@jax.custom_vjp
def _normalize(x, scale, bias, mean, inverse, weight):
    """Scale * (x - mean) * inverse + bias, where mean and inverse are functions of x itself."""
    centred = x.astype(jnp.float32) - mean[None, None, None]
    y = centred * (scale * inverse)[None, None, None] + bias[None, None, None]
    return y.astype(x.dtype)


def _normalize_forward(x, scale, bias, mean, inverse, weight):
    y = _normalize(x, scale, bias, mean, inverse, weight)
    return y, (x, scale, mean, inverse, weight)


def _normalize_backward(residuals, dy):
    x, scale, mean, inverse, weight = residuals
    dtype, dy = x.dtype, dy.astype(jnp.float32)
    centred = x.astype(jnp.float32) - mean[None, None, None]
    dbias = jnp.sum(dy, _PIXELS)
    dscale = jnp.sum(dy * centred, _PIXELS) * inverse
    # dx = factor * (dy - mean(dy) - normalised * mean(dy * normalised)), means over valid pixels.
    factor = scale * inverse
    through_var = factor * inverse * dscale
    through_mean = factor * dbias
    dx = dy * factor[None, None, None] - weight * (
        centred * through_var[None, None, None] + through_mean[None, None, None]
    )
    # The statistics' own share is in dx already.
    zero = jnp.zeros_like(mean)
    return dx.astype(dtype), dscale, dbias, zero, zero, jnp.zeros_like(weight)


_normalize.defvjp(_normalize_forward, _normalize_backward)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He, ECCV 2018): each row by itself, so padding cannot matter.

    Two groups is what the federated baselines that avoid batch statistics use (FedRCL, FedDisco).

    Attributes:
      num_groups: groups of channels.
      epsilon: added to the variance.
    """

    num_groups: int = 2
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None = None) -> jax.Array:
        """Normalise x, float32 or bfloat16 [B, H, W, C]; `train` and `mask` do not matter."""
        del train, mask
        layer = nn.GroupNorm(
            self.num_groups,
            epsilon=self.epsilon,
            use_fast_variance=False,
            dtype=x.dtype,
            name="norm",
        )
        return layer(x)
