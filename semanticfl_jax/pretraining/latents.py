"""Latents of mirrored and shifted training images, made once: the autoencoder is frozen by then."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.array_files import read_npy
from semanticfl_jax.diffusion.batches import over_batches
from semanticfl_jax.pretraining import files


class Autoencoder(NamedTuple):
    """The frozen autoencoder: its module, its parameters, and what latents are multiplied by."""

    module: Any
    params: Any
    scaling_factor: float

    def latents_of(self, pixels: jax.Array) -> jax.Array:
        """Return scaled latent means [n, h, w, c] of uint8 images [n, H, W, 3]; traceable."""
        inputs = (pixels.astype(jnp.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        encode = self.module.encode
        encoded = self.module.apply({"params": self.params}, inputs, method=encode)
        return encoded.latent_dist.mean * self.scaling_factor


def draw_view(count: int, view: int, shift: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a view does to `count` images: `flip` [n] bool, `offset` [n, 2] in pixels.

    View 0 is the image itself and view 1 its mirror image; later ones are shifted as well, by up to
    `shift` pixels (an offset of `shift` moves nothing), and every second one is mirrored.
    """
    flip = np.full(count, view % 2 == 1)
    if view < 2:
        return flip, np.full((count, 2), shift, np.int32)
    rng = np.random.default_rng([seed, view])
    return flip, rng.integers(0, 2 * shift + 1, (count, 2), np.int32)


def cut(pixels: jax.Array, flip: jax.Array, offset: jax.Array, shift: int) -> jax.Array:
    """Mirror and shift images [n, h, w, 3], borders reflected; traceable."""
    _, height, width, _ = pixels.shape
    pixels = jnp.where(flip[:, None, None, None], pixels[:, :, ::-1], pixels)
    padded = jnp.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")

    def one(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, 3))

    return jax.vmap(one)(padded, offset)


def augment(pixels: jax.Array, key: jax.Array, shift: int) -> jax.Array:
    """Mirror and shift uint8 images [n, h, w, 3] at random, by up to `shift` pixels."""
    key_flip, key_shift = jax.random.split(key)
    flip = jax.random.bernoulli(key_flip, shape=(len(pixels),))
    offset = jax.random.randint(key_shift, (len(pixels), 2), 0, 2 * shift + 1)
    return cut(pixels, flip, offset, shift)


class Views(NamedTuple):
    """Latents of several views of the same images, float16 [views, n, h, w, c]."""

    latents: np.ndarray

    def rows(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return float16 latents [len(rows), h, w, c]: an image shows its views in turn."""
        return self.latents[(rows + epoch) % len(self.latents), rows]


def views(
    autoencoder: Autoencoder,
    pixels: np.ndarray,
    count: int,
    shift: int,
    seed: int,
    workdir: Path,
) -> Views:
    """Return `count` views of the images, each kept in a file of `workdir` and read from there.

    Args:
      autoencoder: frozen.
      pixels: [n, h, w, 3] uint8.
      count: number of views.
      shift: the largest shift, in pixels.
      seed: of the shifts.
      workdir: gets `latents_0.npy` and so on.
    """

    @jax.jit
    def compute(pixels, flip, offset):
        return {"latents": autoencoder.latents_of(cut(pixels, flip, offset, shift))}

    found = []
    for view in range(count):
        path = workdir / f"latents_{view}.npy"
        if not path.is_file():
            drawn = draw_view(len(pixels), view, shift, seed)
            made = over_batches(compute, (), (pixels, *drawn), 256, what=path.stem)
            values = made["latents"].astype(np.float16)
            files.write(path, partial(_save, values))
        found.append(read_npy(path))
    return Views(np.stack(found))


def _save(values: np.ndarray, file: BinaryIO) -> None:
    np.save(file, values)
