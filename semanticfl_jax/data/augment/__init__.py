"""Image normalisation and augmentation on device, under jit and vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.data.augment.autoaugment import autoaugment
from semanticfl_jax.data.augment.image_operations import GREY


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Scale images to 0..1 and standardise each channel.

    Args:
      images: uint8 `[..., H, W, 3]`.
      mean: of each channel, in 0..1.
      std: of each channel, in 0..1, above 0.

    Returns:
      float32 of the same shape.
    """
    centre, deviation = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    channels = (1,) * (images.ndim - 1) + (len(mean),)
    scale = jnp.asarray(1 / (255 * deviation), jnp.float32).reshape(channels)
    shift = jnp.asarray(-centre / deviation, jnp.float32).reshape(channels)
    return images.astype(jnp.float32) * scale + shift


def as_network_input(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return what a network sees of a data set's inputs, float32 of the same shape.

    Args:
      images: uint8 `[..., H, W, 3]`, which are normalised; or, without `mean`, inputs as they are,
        of any type and shape.
      mean: of each channel, in 0..1; empty for inputs as they are.
      std: of each channel, in 0..1, above 0; empty likewise.
    """
    return normalize(images, mean, std) if len(mean) else images.astype(jnp.float32)


def random_crop_flip(key: jax.Array, images: jax.Array, pad: int = 4) -> jax.Array:
    """Crop each image at random from its zero-padded self, then mirror it with probability 1/2.

    As torchvision's RandomCrop(H, padding=pad) followed by RandomHorizontalFlip, on values not yet
    normalised, so that the border is black. Image i's draws depend on (key, i) alone, not on the
    batch size (needs `jax_threefry_partitionable`, JAX's default).

    Args:
      key: a PRNG key.
      images: `[B, H, W, C]` of any dtype.
      pad: width of the border, in pixels.

    Returns:
      Images of the same shape and dtype.
    """
    batch, height, width, _ = images.shape
    offset_key, flip_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (batch, 2), -pad, pad + 1)
    flip = jax.random.bernoulli(flip_key, 0.5, (batch,))

    rows = jnp.arange(height)[None] + offsets[:, :1]
    columns = jnp.arange(width)[None]
    columns = jnp.where(flip[:, None], width - 1 - columns, columns) + offsets[:, 1:]
    # One gather, the border masked: no padded copy, and on CPU the fastest of the forms measured.
    cropped = images[
        jnp.arange(batch)[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None, :],
    ]
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None, None] & column_inside[:, None, :, None]
    return jnp.where(inside, cropped, jnp.zeros((), images.dtype))


def cutout(key: jax.Array, images: jax.Array) -> jax.Array:
    """Grey out one square of half the shorter side in each image (DeVries and Taylor, 2017).

    As there, the centre is any pixel, so that part of the square may lie outside, and 32 pixels
    get a square of 16 (CIFAR-10). There it is filled with 0 after normalisation, that is the mean
    colour of the data; here with a fixed grey close to it, since these images are not normalised
    yet. Image i's draws depend on (key, i) alone, as in `random_crop_flip`.

    Args:
      key: a PRNG key.
      images: `[B, H, W, C]`, values 0..255.

    Returns:
      Images of the same shape and dtype.
    """
    batch, height, width, _ = images.shape
    side = min(height, width) // 2
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (batch, 1), 0, height) - side // 2
    left = jax.random.randint(column_key, (batch, 1), 0, width) - side // 2
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    rows = (rows >= top) & (rows < top + side)
    columns = (columns >= left) & (columns < left + side)
    square = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(square, jnp.asarray(GREY, images.dtype), images)


#: Steps by name: `(key, images uint8 [B, H, W, 3]) -> images` of the same shape and dtype.
AUGMENTATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "crop_flip": random_crop_flip,
    "autoaugment": autoaugment,
    "cutout": cutout,
}


def augment(key: jax.Array, images: jax.Array, steps: Sequence[str]) -> jax.Array:
    """Apply steps in order.

    Args:
      key: a PRNG key; a step's draws depend on it and the step's place.
      images: uint8 `[B, H, W, 3]`.
      steps: names in `AUGMENTATIONS`, static.
    """
    for place, step in enumerate(steps):
        images = AUGMENTATIONS[step](jax.random.fold_in(key, place), images)
    return images
