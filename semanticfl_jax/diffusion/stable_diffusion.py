"""A Stable Diffusion checkpoint as pure JAX functions: VAE, U-Net, text tower, noise schedule.

A small interface, behind which the libraries that hold the networks (`networks.py`) can be
replaced. Everything outside is NHWC and float32, whatever precision is computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from semanticfl_jax.diffusion import torch_weights
from semanticfl_jax.diffusion.fingerprint import fingerprint, resolve_checkpoint, weight_file
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.errors import SemanticFLError

_PROMPTS_PER_BATCH = 64


@flax.struct.dataclass
class StableDiffusion:
    """A loaded checkpoint. A pytree of its weights, so it can be an argument of jitted functions.

    Attributes:
      params: {"vae", "unet", "text_encoder"}: parameters in the precision computed in.
      networks: the modules and settings; static under jit.
      directory: where it was loaded from.
    """

    params: dict[str, Any]
    networks: Networks = flax.struct.field(pytree_node=False)
    directory: Path = flax.struct.field(pytree_node=False)

    @property
    def available_maps(self) -> tuple[str, ...]:
        """What `feature_maps` can give: down_0, ..., mid, up_0, ..., in the forward's order."""
        return tuple(self.networks.maps)

    @property
    def text_dim(self) -> int:
        """Width of token states and of the pooled text."""
        return self.networks.text_config.hidden_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the checkpoint was made for."""
        return self.networks.unet.sample_size * self.networks.vae_factor

    @property
    def vae_factor(self) -> int:
        """Pixels a latent position, along each side; image sides must be multiples of it."""
        return self.networks.vae_factor

    @property
    def latent_channels(self) -> int:
        """Channels c of a latent."""
        return self.networks.vae.latent_channels

    @property
    def alphas_cumprod(self) -> np.ndarray:
        """float64 [1000]: the share of signal variance, abar_t, after t + 1 noising steps."""
        return self.networks.alphas_cumprod

    @property
    def prediction_type(self) -> str:
        """What `predict` gives: "epsilon" (SD 1.x) or "v_prediction" (SD 2.x at 768 pixels)."""
        return self.networks.prediction_type

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint's files (`fingerprint.fingerprint`), read anew."""
        return fingerprint(self.directory)

    def encode(self, images: jax.Array) -> jax.Array:
        """Return latents [B, h, w, c] of images [B, H, W, 3] in [-1, 1].

        The posterior's mean times the VAE's scaling factor (0.18215 for SD 1.x and 2.x). [paper]
        """
        return _encode(self, images)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Return images [B, H, W, 3], about in [-1, 1], of latents [B, h, w, c]."""
        return _decode(self, latents)

    def text(self, prompts: Sequence[str]) -> tuple[jax.Array, jax.Array]:
        """Return P texts' token states [P, L, d] after the last layer norm, and the end's [P, d].

        Texts are padded, or cut, to the tower's L tokens; padding is attended to, as in training.
        """
        ids = self.networks.tokenize(prompts)
        count = min(_PROMPTS_PER_BATCH, len(ids))
        padded = np.concatenate([ids, ids[-1:].repeat(-len(ids) % count, 0)])
        batches = [_text(self, batch) for batch in padded.reshape(-1, count, ids.shape[1])]
        states, pooled = map(jnp.concatenate, zip(*batches, strict=True))
        return states[: len(ids)], pooled[: len(ids)]

    def predict(self, latents: jax.Array, t: jax.Array, text_states: jax.Array) -> jax.Array:
        """Return the U-Net's output [B, h, w, c] (see `prediction_type`) for noised latents.

        Args:
          latents: [B, h, w, c], noised to step t.
          t: the step, from 0; int [B], or one for all.
          text_states: [B, L, d].
        """
        return _predict(self, latents, t, text_states)

    def predict_noise(self, latents: jax.Array, t: jax.Array, text_states: jax.Array) -> jax.Array:
        """Return the noise eps [B, h, w, c] in noised latents; arguments as for `predict`.

        Of a checkpoint that predicts v = sqrt(abar) eps - sqrt(1 - abar) z_0 (Salimans and Ho 2022)
        it is sqrt(abar) v + sqrt(1 - abar) z_t.
        """
        output = self.predict(latents, t, text_states)
        if self.prediction_type == "epsilon":
            return output
        bars = jnp.asarray(self.alphas_cumprod, jnp.float32)
        bar = jnp.broadcast_to(bars[t], latents.shape[:1])[:, None, None, None]
        return jnp.sqrt(bar) * output + jnp.sqrt(1 - bar) * latents

    def feature_maps(
        self, latents: jax.Array, t: int | jax.Array, text_states: jax.Array, maps: Sequence[str]
    ) -> dict[str, jax.Array]:
        """Return U-Net blocks' outputs {name: [B, h', w', c']} in one forward for noised latents.

        A map is what the whole block returns, as in DIFT and FedDifRC: `down_i` after the block's
        downsampling and `up_i` (0-based) after its upsampling, where it has one. Blocks that no
        chosen map needs are not computed.

        Args:
          latents: [B, h, w, c], noised to step t.
          t: the step, from 0; int [B], or one for all.
          text_states: [B, L, d].
          maps: some of `available_maps`.

        Raises:
          SemanticFLError: if the checkpoint has no such map.
        """
        unknown = [name for name in maps if name not in self.available_maps]
        if unknown:
            raise SemanticFLError(
                f"maps: {', '.join(unknown)} not in this checkpoint, which has "
                f"{', '.join(self.available_maps)}"
            )
        return _feature_maps(self, latents, t, text_states, tuple(maps))


def load(checkpoint: str | Path, *, dtype: Any = jnp.float32) -> StableDiffusion:
    """Load Stable Diffusion 1.x or 2.x in diffusers' layout, with PyTorch or Flax weights.

    Args:
      checkpoint: whatever `resolve_checkpoint` takes: "tiny-sd", a directory, or a hub id.
      dtype: jnp.float32 or jnp.bfloat16, to hold the weights and compute in; the files may be of
        any precision. (In float16 the VAE overflows.)

    Raises:
      MissingFileError: if files are missing.
      SemanticFLError: if a configuration is not supported, or weights do not fit it.
    """
    if jnp.dtype(dtype) not in (jnp.float32, jnp.bfloat16):
        raise SemanticFLError(f"dtype: {jnp.dtype(dtype).name}; allowed are float32, bfloat16")
    directory = resolve_checkpoint(checkpoint)
    networks = Networks(directory, jnp.dtype(dtype))
    params = {
        component: jax.tree.map(
            partial(jnp.asarray, dtype=dtype),
            unflatten_dict(torch_weights.read(weight_file(directory, component), expected)),
        )
        for component, expected in networks.expected_params().items()
    }
    return StableDiffusion(params, networks, directory)


@jax.jit
def _encode(sd: StableDiffusion, images: jax.Array) -> jax.Array:
    vae = sd.networks.vae
    pixels = images.transpose(0, 3, 1, 2).astype(sd.networks.dtype)
    encoded: Any = vae.apply({"params": sd.params["vae"]}, pixels, method=vae.encode)
    return encoded.latent_dist.mean.astype(jnp.float32) * vae.scaling_factor


@jax.jit
def _decode(sd: StableDiffusion, latents: jax.Array) -> jax.Array:
    vae = sd.networks.vae
    scaled = (latents / vae.scaling_factor).astype(sd.networks.dtype)
    # The decoder takes channels last as well (it looks for them there), but gives channels first.
    decoded: Any = vae.apply({"params": sd.params["vae"]}, scaled, method=vae.decode)
    return decoded.sample.transpose(0, 2, 3, 1).astype(jnp.float32)


@jax.jit
def _text(sd: StableDiffusion, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    found = sd.networks.text_encoder(ids, params=sd.params["text_encoder"])
    return tuple(x.astype(jnp.float32) for x in (found.last_hidden_state, found.pooler_output))


@jax.jit
def _predict(sd: StableDiffusion, latents, t, text_states) -> jax.Array:
    t = jnp.broadcast_to(t, latents.shape[:1])
    return sd.networks.apply_unet(sd.params["unet"], latents, t, text_states)[0]


@partial(jax.jit, static_argnames="maps")
def _feature_maps(sd: StableDiffusion, latents, t, text_states, maps) -> dict[str, jax.Array]:
    t = jnp.broadcast_to(t, latents.shape[:1])
    return sd.networks.apply_unet(sd.params["unet"], latents, t, text_states, maps)[1]
