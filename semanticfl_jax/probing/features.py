"""The features that a probe looks at, extracted once and kept under the probe's directory.

The network is never told what is in an image: the prompt is empty for all of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax import files
from semanticfl_jax.array_files import kept_npz
from semanticfl_jax.config import GuidanceConfig
from semanticfl_jax.diffusion.batches import default_batch_size, discard, over_batches
from semanticfl_jax.diffusion.features import extract_features, latents_of
from semanticfl_jax.diffusion.random_weights import COMPONENTS, with_random_weights
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion
from semanticfl_jax.types import Say

#: Which components have random weights, by the name under which a table shows it.
NETWORKS = {"trained": (), "random U-Net": ("unet",), "all random": COMPONENTS}
#: The VAE's latent as it is, not averaged over space; beside the U-Net's maps and "vae".
LATENT = "vae, not pooled"
#: Images by which a random VAE's latents are brought to size.
_SCALED_BY = 512


def cached_features(
    sd: StableDiffusion,
    network: str,
    images: np.ndarray,
    directory: Path,
    *,
    checkpoint_sha256: str,
    config: GuidanceConfig,
    maps: Sequence[str],
    seed: int,
    say: Say = print,
) -> dict[str, np.ndarray]:
    """Return pooled maps, and the latent, of every image; read if they lie in `directory`.

    The file is named by everything that decides them. Finished batches lie beside it until it is
    whole, so that an interrupted call goes on.

    Args:
      sd: the trained checkpoint.
      network: a key of `NETWORKS`.
      images: uint8 [n, H, W, 3].
      directory: where features are kept.
      checkpoint_sha256: fingerprint of `sd`.
      config: time step, resolution, and images at once.
      maps: of `available_maps(sd)`.
      seed: of the noise, and of random weights.
      say: takes lines for the user.

    Returns:
      {name: float32 [n, c]}: `LATENT`, then `maps`.
    """
    resolution = config.resolution or sd.image_size
    decisive = {
        "checkpoint_sha256": checkpoint_sha256,
        "dtype": jnp.dtype(sd.networks.dtype).name,
        "images_sha256": hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest(),
        "maps": list(maps),
        "prompt": "",
        "random": list(NETWORKS[network]),
        "resolution": resolution,
        "seed": seed,
        "shape": list(images.shape),
        "timestep": config.timestep,
    }
    described = json.dumps(decisive, sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    name = f"{network.replace(' ', '-').lower()}-seed{seed}-{key}"
    path, parts = directory / f"{name}.npz", directory / f"{name}-parts"
    found = kept_npz(path)
    if found is None:
        say(f"features of {len(images):,} images: {network}, seed {seed}")
        model = with_random_weights(sd, NETWORKS[network], seed)
        if "vae" in NETWORKS[network]:
            model = _with_unit_latents(model, images[:_SCALED_BY], resolution)
        batch_size = config.diffusion_batch_size or None
        found = extract_features(
            model,
            images,
            model.text([""])[0],
            np.zeros(len(images), int),
            maps=maps,
            timestep=config.timestep,
            seed=seed,
            batch_size=batch_size,
            resolution=resolution,
            parts=parts / "maps",
        )
        found = {LATENT: latents(model, images, resolution, batch_size, parts / "latents"), **found}
        files.write(path, lambda file: np.savez(file, made_of=described, **found))
        for part in ("maps", "latents"):
            discard(parts / part)
    return {name: found[name] for name in (LATENT, *maps)}


def latents(
    sd: StableDiffusion,
    images: np.ndarray,
    resolution: int,
    batch_size: int | None = None,
    parts: Path | None = None,
) -> np.ndarray:
    """Return latents float32 [n, h w c] of uint8 images [n, H, W, 3] at `resolution`."""
    found = over_batches(
        partial(_latents, resolution=resolution),
        (sd,),
        (images,),
        batch_size or default_batch_size((resolution // sd.vae_factor) ** 2),
        what="latents",
        parts=parts,
    )
    return found["latents"]


@partial(jax.jit, static_argnames="resolution")
def _latents(sd, images, *, resolution):
    return {"latents": latents_of(sd, images, resolution).reshape(len(images), -1)}


def _with_unit_latents(sd: StableDiffusion, images: np.ndarray, resolution: int) -> StableDiffusion:
    """Return `sd` with latents of deviation 1, as a checkpoint's scaling factor sees to.

    A random VAE's are several times smaller, and would drown in the noise.
    """
    scale = 1 / float(latents(sd, images, resolution).std())
    last = jax.tree.map(lambda leaf: leaf * scale, sd.params["vae"]["quant_conv"])
    vae = sd.params["vae"] | {"quant_conv": last}
    return dataclasses.replace(sd, params=sd.params | {"vae": vae})
