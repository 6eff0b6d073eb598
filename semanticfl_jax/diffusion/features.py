"""Pooled features of images from the frozen diffusion model.

Paper (arXiv 2603.19337): VAE latents, controlled noise at t = 150, one U-Net forward conditioned on
the text of the image's class, feature maps of several depths, global average pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.diffusion.batches import default_batch_size, over_batches
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.errors import SemanticFLError

#: "vae" is the latent itself, before noise; the others are the U-Net's. [list: our choice]
DEFAULT_MAPS = ("vae", "mid", "up_1", "up_2", "up_3")


def available_maps(sd: StableDiffusion) -> tuple[str, ...]:
    """Return the names that `extract_features` takes with this checkpoint."""
    return ("vae", *sd.available_maps)


def default_maps(sd: StableDiffusion) -> tuple[str, ...]:
    """Return those of `DEFAULT_MAPS` that this checkpoint has; a smaller U-Net has fewer blocks."""
    return tuple(name for name in DEFAULT_MAPS if name in available_maps(sd))


def add_noise(latents: jax.Array, noise: jax.Array, alpha_bar: float | jax.Array) -> jax.Array:
    """Return z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps  (DDPM, Ho et al. 2020, eq. 4).

    Args:
      latents: z_0, of any shape.
      noise: eps, standard normal, of the same shape.
      alpha_bar: abar_t; a scalar, or of a shape that broadcasts.
    """
    return jnp.sqrt(alpha_bar) * latents + jnp.sqrt(1 - alpha_bar) * noise


def latents_of(sd: StableDiffusion, images: jax.Array, resolution: int) -> jax.Array:
    """Return latents [B, h, w, c] of uint8 images [B, H, W, 3] at `resolution`; traceable."""
    shape = (len(images), resolution, resolution, 3)
    pixels = jax.image.resize(images.astype(jnp.float32), shape, "bilinear") / 127.5 - 1
    return sd.encode(pixels)


def extract_features(
    sd: StableDiffusion,
    images: np.ndarray,
    text_states: np.ndarray | jax.Array,
    prompt_index: np.ndarray,
    *,
    maps: Sequence[str] | None = None,
    timestep: int = 150,
    seed: int = 0,
    batch_size: int | None = None,
    resolution: int | None = None,
    first_position: int = 0,
    parts: Path | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Return average-pooled feature maps of images, each conditioned on a prompt of its own.

    An image's noise depends on (seed, its position) alone: not on batches or devices.

    Args:
      sd: the loaded checkpoint.
      images: uint8 [n, H, W, 3].
      text_states: float32 [P, L, d], token states of P prompts (`StableDiffusion.text`).
      prompt_index: int [n], which of the prompts conditions each image.
      maps: some of `available_maps(sd)`; `default_maps(sd)` if None.
      timestep: t, from 0.
      seed: of the noise.
      batch_size: images a forward, over all local devices; rounded up to a multiple of them. None
        chooses by the resolution (`default_batch_size`).
      resolution: images are resized to this side (bilinear, antialiased); the checkpoint's own
        image size if None.
      first_position: of `images[0]` in the whole set, where it is worked on part by part.
      parts: directory in which finished batches are kept, see `over_batches`.
      progress: whether to show a progress bar.

    Returns:
      {map: float32 [n, channels]}, in the order of `maps`.

    Raises:
      SemanticFLError: naming the argument that is wrong.
    """
    maps = tuple(default_maps(sd) if maps is None else maps)
    resolution = sd.image_size if resolution is None else resolution
    prompt_index = np.asarray(prompt_index)
    if batch_size is None:
        batch_size = default_batch_size((resolution // sd.vae_factor) ** 2)
    _check(sd, images, text_states, prompt_index, maps, timestep, batch_size, resolution)
    found = over_batches(
        partial(pooled_maps, timestep=timestep, maps=maps, resolution=resolution),
        (sd, jnp.asarray(text_states), jax.random.key(seed)),
        (images, prompt_index, np.arange(len(images)) + first_position),
        batch_size,
        what="features",
        parts=parts,
        progress=progress,
    )
    return {name: found[name] for name in maps}  # jit sorts the keys


@partial(jax.jit, static_argnames=("maps", "resolution", "timestep"))
def pooled_maps(
    sd: StableDiffusion,
    text_states: jax.Array,
    key: jax.Array,
    images: jax.Array,
    prompt_index: jax.Array,
    positions: jax.Array,
    *,
    timestep: int,
    maps: tuple[str, ...],
    resolution: int,
) -> dict[str, jax.Array]:
    """Return {map: float32 [B, c]} of a batch, compiled.

    Args:
      sd: the loaded checkpoint.
      text_states: float32 [P, L, d].
      key: of the noise.
      images: uint8 [B, H, W, 3].
      prompt_index: int [B], which of the prompts conditions each image.
      positions: int [B], of the images in the whole set.
      timestep: t, from 0.
      maps: some of `available_maps(sd)`.
      resolution: images are resized to this side.
    """
    latents = latents_of(sd, images, resolution)

    def draw(position):
        return jax.random.normal(jax.random.fold_in(key, position), latents.shape[1:])

    noised = add_noise(latents, jax.vmap(draw)(positions), float(sd.alphas_cumprod[timestep]))
    of_unet = tuple(name for name in maps if name != "vae")
    found = {"vae": latents}
    if of_unet:
        found |= sd.feature_maps(noised, timestep, text_states[prompt_index], of_unet)
    return {name: found[name].mean((1, 2)) for name in maps}


def _check(sd, images, text_states, prompt_index, maps, timestep, batch_size, resolution):
    def require(holds, name, allowed, found):
        if not holds:
            raise SemanticFLError(f"{name}: must be {allowed}, not {found!r}")

    shape, factor, offered = np.shape(images), sd.vae_factor, available_maps(sd)
    is_images = len(shape) == 4 and shape[-1] == 3 and shape[0] > 0 and images.dtype == np.uint8
    require(is_images, "images", "uint8 [n, H, W, 3] with n > 0", f"{images.dtype} {shape}")
    require(np.ndim(text_states) == 3, "text_states", "[P, L, d]", np.shape(text_states))
    indices = f"integers [{len(images)}] from 0 to {len(text_states) - 1}"
    holds = prompt_index.shape == shape[:1] and np.issubdtype(prompt_index.dtype, np.integer)
    require(holds, "prompt_index", indices, f"{prompt_index.dtype} {prompt_index.shape}")
    inside = prompt_index.min() >= 0 and prompt_index.max() < len(text_states)
    require(inside, "prompt_index", indices, (int(prompt_index.min()), int(prompt_index.max())))
    require(len(set(maps)) == len(maps) > 0, "maps", "distinct names, at least one", maps)
    for name in maps:
        require(name in offered, "maps", f"among {', '.join(offered)}", name)
    steps = len(sd.alphas_cumprod)
    require(0 <= timestep < steps, "timestep", f"from 0 to {steps - 1}", timestep)
    require(batch_size > 0, "batch_size", "positive", batch_size)
    multiple = resolution > 0 and resolution % factor == 0
    require(multiple, "resolution", f"a positive multiple of {factor}", resolution)
