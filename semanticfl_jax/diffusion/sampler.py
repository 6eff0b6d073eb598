"""Deterministic DDIM sampling with classifier-free guidance.

DDIM: Song et al. 2021, equation 12 with sigma = 0. Guidance: Ho and Salimans 2022, equation 6.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def guided(
    predict: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    condition: jax.Array,
    null_condition: jax.Array,
    scale: float,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A noise predictor pushed away from the null prompt: null + scale (conditional - null).

    Args:
      predict: (latents [n, ...], timesteps [n], condition [n, tokens, d]) -> noise.
      condition: [n, tokens, d] token states of the prompts.
      null_condition: the same shape, of the empty prompt.
      scale: 1 is plain conditional sampling.

    Returns:
      (latents, timesteps) -> noise, with both predictions in one batch of 2 n.
    """
    both = jnp.concatenate([condition, null_condition])

    def predict_guided(latents, timesteps):
        twice = jnp.concatenate([latents, latents])
        noise = predict(twice, jnp.concatenate([timesteps, timesteps]), both)
        conditional, null = jnp.split(noise, 2)
        return null + scale * (conditional - null)

    return predict_guided


def ddim(
    predict: Callable[[jax.Array, jax.Array], jax.Array],
    noise: jax.Array,
    alphas: np.ndarray,
    steps: int,
) -> jax.Array:
    """Latents denoised in `steps` steps from t = T - 1 down to 0, evenly spaced.

    One compiled step is dispatched `steps` times: in a loop, XLA's CPU convolutions are slow.

    Args:
      predict: (latents [n, ...], timesteps [n] int32) -> predicted noise.
      noise: [n, ...] standard normal start.
      alphas: [T] abar_t (`StableDiffusion.alphas_cumprod`).
      steps: number of steps, at most T.

    Returns:
      [n, ...] the predicted clean latents.

    Raises:
      ValueError: if `steps` is not from 1 to T.
    """
    if not 1 <= steps <= len(alphas):
        raise ValueError(f"steps must be from 1 to {len(alphas)}, got {steps}")
    times = np.linspace(len(alphas) - 1, 0, steps).round().astype(np.int32)
    starts = np.asarray(alphas, np.float32)[times]
    targets = np.append(starts[1:], np.float32(1))

    @jax.jit
    def step(latents, time, alpha, target):
        predicted = predict(latents, jnp.full(len(latents), time))
        clean = (latents - jnp.sqrt(1 - alpha) * predicted) / jnp.sqrt(alpha)
        return jnp.sqrt(target) * clean + jnp.sqrt(1 - target) * predicted

    latents = noise
    for time, alpha, target in zip(times, starts, targets, strict=True):
        latents = step(latents, time, alpha, target)
    return latents
