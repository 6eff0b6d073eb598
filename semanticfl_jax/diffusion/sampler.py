"""Images from prompts: deterministic DDIM sampling with classifier-free guidance.

DDIM: Song et al. 2021, equation 12 with sigma = 0. Guidance: Ho and Salimans 2022, equation 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.diffusion.batches import default_batch_size, over_batches
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.randomness import Stream, stream_key


def guided(predict: Callable[..., jax.Array], scale: float) -> Callable[..., jax.Array]:
    """Return a noise predictor pushed away from the null prompt: null + scale (conditional - null).

    Args:
      predict: (latents [n, ...], timesteps [n], condition [n, tokens, d], *more) -> noise.
      scale: 1 is plain conditional sampling.

    Returns:
      (latents, timesteps, condition, null_condition, *more) -> noise, with both predictions in one
      batch of 2 n; `null_condition` [n, tokens, d] is that of the empty prompt.
    """

    def predict_guided(latents, timesteps, condition, null_condition, *more):
        twice = jnp.concatenate([latents, latents])
        times = jnp.concatenate([timesteps, timesteps])
        both = jnp.concatenate([condition, null_condition])
        conditional, null = jnp.split(predict(twice, times, both, *more), 2)
        return null + scale * (conditional - null)

    return predict_guided


def ddim(
    predict: Callable[..., jax.Array],
    noise: jax.Array,
    alphas: np.ndarray,
    steps: int,
    *context: jax.Array,
) -> jax.Array:
    """Denoise latents in `steps` steps from t = T - 1 down to 0, evenly spaced.

    One compiled step is dispatched `steps` times: in a loop, XLA's CPU convolutions are slow. It is
    compiled once for a `predict` and the shapes it meets.

    Args:
      predict: (latents [n, ...], timesteps [n] int32, *context) -> predicted noise.
      noise: [n, ...] standard normal start.
      alphas: [T] abar_t (`StableDiffusion.alphas_cumprod`).
      steps: number of steps, at most T.
      context: what else `predict` needs, pytrees of arrays.

    Returns:
      [n, ...] the predicted clean latents.

    Raises:
      SemanticFLError: if `steps` is not from 1 to T.
    """
    if not 1 <= steps <= len(alphas):
        raise SemanticFLError(f"steps must be from 1 to {len(alphas)}, got {steps}")
    times = np.linspace(len(alphas) - 1, 0, steps).round().astype(np.int32)
    starts = np.asarray(alphas, np.float32)[times]
    targets = np.append(starts[1:], np.float32(1))
    latents = noise
    for time, alpha, target in zip(times, starts, targets, strict=True):
        latents = _step(predict, latents, time, alpha, target, *context)
    return latents


@partial(jax.jit, static_argnums=0)
def _step(predict, latents, time, alpha, target, *context):
    predicted = predict(latents, jnp.full(len(latents), time), *context)
    clean = (latents - jnp.sqrt(1 - alpha) * predicted) / jnp.sqrt(alpha)
    return jnp.sqrt(target) * clean + jnp.sqrt(1 - target) * predicted


def generate(
    sd: StableDiffusion,
    prompts: Sequence[str],
    per_prompt: int,
    *,
    steps: int = 20,
    scale: float = 7.5,
    seed: int = 0,
    batch_size: int | None = None,
    parts: Path | None = None,
    progress: bool = True,
) -> np.ndarray:
    """Draw images from prompts, at the checkpoint's own size.

    An image's starting noise depends on (seed, its place) alone: not on batches or devices.

    Args:
      sd: the loaded checkpoint.
      prompts: P texts.
      per_prompt: images of each.
      steps: of DDIM.
      scale: of the guidance; 7.5 is usual for Stable Diffusion.
      seed: of the starting noise.
      batch_size: images at once, over all local devices; None chooses by the image size.
      parts: directory in which finished batches are kept, see `over_batches`.
      progress: whether to show a progress bar.

    Returns:
      uint8 [P, per_prompt, H, W, 3].
    """
    side = sd.image_size // sd.vae_factor
    states, _ = sd.text([*prompts, ""])
    # One function for all batches, so that its step is compiled once.
    predict = guided(_predict, scale)

    def draw(sd, states, key, prompt, position):
        noise = _noise(key, position, (side, side, sd.latent_channels))
        condition = states[prompt]
        null = jnp.broadcast_to(states[-1:], condition.shape)
        latents = ddim(predict, noise, sd.alphas_cumprod, steps, condition, null, sd)
        return {"images": _to_uint8(sd.decode(latents))}

    count = len(prompts) * per_prompt
    found = over_batches(
        draw,
        # Not the noise that features of the images are taken with: the seed may be the same.
        (sd, states, stream_key(jax.random.key(seed), Stream.GENERATED_IMAGES)),
        (np.arange(count) // per_prompt, np.arange(count)),
        batch_size or default_batch_size(2 * side**2),  # guidance doubles the batch
        what="images",
        parts=parts,
        progress=progress,
    )
    images = found["images"]
    return images.reshape(len(prompts), per_prompt, *images.shape[1:])


def _predict(latents, times, states, sd):
    return sd.predict_noise(latents, times, states)


@partial(jax.jit, static_argnames="shape")
def _noise(key, positions, shape):
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), shape))(positions)


@jax.jit
def _to_uint8(images):
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)
