"""Stage 2: the autoencoder between images and latents (Rombach et al. 2022, section 3.1).

L1 + squared reconstruction error and a small Kullback-Leibler term; no adversarial and no
perceptual loss. [ours]
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.optional import optional_imports
from semanticfl_jax.pretraining import files, images, loop
from semanticfl_jax.pretraining.config import VaeConfig


def build(config: VaeConfig, image_size: int):
    """Return the Linen module: `levels` resolutions, channels `width` x (1, 2, 4, 4, ...)."""
    with optional_imports("diffusion", "pre-training"):
        from diffusers import FlaxAutoencoderKL

    return FlaxAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * config.levels,
        up_block_types=("UpDecoderBlock2D",) * config.levels,
        block_out_channels=tuple(config.width * min(2**i, 4) for i in range(config.levels)),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_groups,
        latent_channels=config.latent_channels,
        sample_size=image_size,
    )


def reconstruction_loss(module, params, batch: jax.Array, key: jax.Array, kl_weight: float) -> dict:
    """Return `loss` = `l1` + `mse` + kl_weight * `kl` on images [n, h, w, 3] in [-1, 1].

    `kl` is the mean over latent elements of KL(q(z|x) || N(0, 1)), in nats.
    """
    inputs = batch.transpose(0, 3, 1, 2)
    posterior = module.apply({"params": params}, inputs, method=module.encode).latent_dist
    latents = posterior.mean + posterior.std * jax.random.normal(key, posterior.mean.shape)
    # The decoder takes channels last as well, but gives channels first.
    decoded = module.apply({"params": params}, latents, method=module.decode)
    error = decoded.sample - inputs
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    l1, mse = jnp.abs(error).mean(), (error**2).mean()
    return {"loss": l1 + mse + kl_weight * kl, "l1": l1, "mse": mse, "kl": kl}


def train(
    config: VaeConfig,
    directory: Path,
    workdir: Path,
    train_pixels: np.ndarray,
    val_pixels: np.ndarray,
    seed: int,
    checkpoint_every: int,
    log_every: int,
) -> tuple[Any, float]:
    """Train the autoencoder and write `vae/` under `directory`.

    Args:
      config: sizes and schedule.
      directory: the checkpoint, in diffusers' layout.
      workdir: for the stage's own checkpoint and curve.
      train_pixels: [n, h, w, 3] uint8; mirrored at random.
      val_pixels: [m, h, w, 3] uint8, for the curve's `val_mse`.
      seed: of initialisation, order and noise.
      checkpoint_every: steps between checkpoints.
      log_every: steps between lines of the curve.

    Returns:
      (parameters as saved, scaling factor: what gives the training images' latents the deviation
      `config.latent_std`).

    Raises:
      ConfigError: if it diverged; no weights are written.
    """
    module = build(config, train_pixels.shape[1])
    batches = images.Batches(len(train_pixels), config.batch_size, seed)
    steps = config.steps(batches.per_epoch)
    optimiser = loop.adamw(config.learning_rate, steps, config.warmup, config.weight_decay)
    params = jax.jit(module.init_weights)(jax.random.key(seed))
    state = {"params": params, "optimiser": optimiser.init(params)}

    def batch_fn(step):
        return train_pixels[batches(step)]

    def step(state, pixels, key):
        key_flip, key_noise = jax.random.split(key)
        flip = jax.random.bernoulli(key_flip, shape=(len(pixels), 1, 1, 1))
        batch = jnp.where(flip, pixels[:, :, ::-1], pixels).astype(jnp.float32) / 127.5 - 1

        def loss_fn(params):
            losses = reconstruction_loss(module, params, batch, key_noise, config.kl_weight)
            return losses["loss"], losses

        gradients, losses = jax.grad(loss_fn, has_aux=True)(state["params"])
        updates, optimiser_state = optimiser.update(gradients, state["optimiser"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "optimiser": optimiser_state}, losses

    shown = val_pixels[: 4 * config.batch_size]

    def evaluate(state):
        decoded = reconstruct(module, state["params"], shown, config.batch_size)
        return {"val_mse": float(((decoded - images.to_input(shown)) ** 2).mean())}

    state, _ = loop.train(
        workdir,
        "vae",
        state,
        step,
        batch_fn,
        steps,
        seed,
        config.batch_size,
        checkpoint_every,
        log_every,
        evaluate,
    )
    params = files.as_saved(state["params"])
    some = np.random.default_rng(seed).permutation(len(train_pixels))[:2048]
    latents = encode(module, params, train_pixels[np.sort(some)], config.batch_size)
    scaling_factor = float(config.latent_std / latents.std())
    files.require_finite("vae", (params, scaling_factor))
    settings = {"_class_name": "AutoencoderKL", "scaling_factor": scaling_factor}
    files.write_json(directory / "vae" / "config.json", plain_config(module) | settings)
    files.write_msgpack(directory / "vae" / "diffusion_flax_model.msgpack", params, np.float16)
    return params, scaling_factor


def plain_config(module) -> dict:
    """Return a diffusers module's settings as a dict for `config.json`."""
    private = ("_use_default_values", "_class_name", "dtype", "name", "parent")
    return {name: value for name, value in dict(module.config).items() if name not in private}


def _in_batches(function, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Apply `function` to `rows`, `batch_size` at a time; its last row fills the last batch."""
    parts = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        filled = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), 0)])
        parts.append(np.asarray(function(filled))[: len(part)])
    return np.concatenate(parts)


def encode(module, params, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Return latent means [n, h, w, c] float32, not scaled, of uint8 pixels [n, H, W, 3]."""

    @jax.jit
    def forward(params, batch):
        inputs = batch.transpose(0, 3, 1, 2)
        return module.apply({"params": params}, inputs, method=module.encode).latent_dist.mean

    return _in_batches(lambda part: forward(params, images.to_input(part)), pixels, batch_size)


def reconstruct(module, params, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    """Return images in [-1, 1] after encoding and decoding uint8 pixels [n, H, W, 3]."""

    @jax.jit
    def forward(params, batch):
        inputs = batch.transpose(0, 3, 1, 2)
        posterior = module.apply({"params": params}, inputs, method=module.encode).latent_dist
        decoded = module.apply({"params": params}, posterior.mean, method=module.decode).sample
        return decoded.transpose(0, 2, 3, 1)

    return _in_batches(lambda part: forward(params, images.to_input(part)), pixels, batch_size)
