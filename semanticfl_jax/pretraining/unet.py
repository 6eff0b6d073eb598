"""Stage 3: the noise predictor in latent space, conditioned on the text tower's token states.

The losses are in `objective.py`. The result is a plain latent diffusion checkpoint.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.pretraining import files, images, loop
from semanticfl_jax.pretraining.config import UnetConfig
from semanticfl_jax.pretraining.latents import Autoencoder, Views, augment
from semanticfl_jax.pretraining.objective import Objective, Targets, Texts

SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def write_configs(config: UnetConfig, directory: Path, vae_module: Any, text_width: int) -> None:
    """Write `unet/config.json` and `scheduler/scheduler_config.json`.

    As in Stable Diffusion, every level from `attention_from` on but the lowest attends to the text.
    """
    attending = [
        config.attention_from <= level < config.levels - 1 for level in range(config.levels)
    ]
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attending]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attending)]
    settings = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": config.heads,
        "block_out_channels": [config.width * min(2**i, 4) for i in range(config.levels)],
        "center_input_sample": False,
        "cross_attention_dim": text_width,
        "down_block_types": down,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": vae_module.latent_channels,
        "layers_per_block": config.layers_per_block,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": config.norm_groups,
        "out_channels": vae_module.latent_channels,
        "sample_size": vae_module.sample_size >> (len(vae_module.block_out_channels) - 1),
        "up_block_types": up,
    }
    files.write_json(directory / "unet" / "config.json", settings)
    files.write_json(directory / "scheduler" / "scheduler_config.json", SCHEDULER)


def make_step(
    config: UnetConfig,
    objective: Objective,
    autoencoder: Autoencoder,
    optimiser: optax.GradientTransformation,
) -> Callable[[Any, Any, jax.Array], tuple[Any, dict[str, jax.Array]]]:
    """Return a training step `(state, batch, key) -> (state, losses)` for `loop.train`."""

    def step(state, batch, key):
        key_augment, key_losses = jax.random.split(key)
        if "latents" in batch:
            latents = batch["latents"].astype(jnp.float32)
        else:
            latents = autoencoder.latents_of(augment(batch["pixels"], key_augment, config.shift))

        def loss_fn(trained):
            return objective(trained, latents, batch["labels"], batch.get("targets"), key_losses)

        gradients, losses = jax.grad(loss_fn, has_aux=True)(state["trained"])
        updates, optimiser_state = optimiser.update(gradients, state["optimiser"], state["trained"])
        trained = optax.apply_updates(state["trained"], updates)
        # The average forgets faster at first: min(decay, (1 + s) / (10 + s)).
        decay = jnp.minimum(config.average_decay, (1 + state["step"]) / (10 + state["step"]))
        average = optax.incremental_update(trained["unet"], state["average"], 1 - decay)
        return {
            "trained": trained,
            "optimiser": optimiser_state,
            "average": average,
            "step": state["step"] + 1,
        }, losses

    return step


def train(
    config: UnetConfig,
    directory: Path,
    workdir: Path,
    train_split: images.Images,
    val_split: images.Images,
    autoencoder: Autoencoder,
    texts: Texts,
    views: Views | None,
    targets: Targets | None,
    seed: int,
    checkpoint_every: int,
    log_every: int,
) -> Any:
    """Train the noise predictor and write the averaged weights to `unet/`, and `scheduler/`.

    Args:
      config: sizes and schedule.
      directory: the checkpoint, in diffusers' layout.
      workdir: for the stage's own checkpoint and curve.
      train_split: images and labels.
      val_split: the same, for the curve's `val_mse` and `val_encoder`.
      autoencoder: of stage 2; frozen.
      texts: of stage 1.
      views: latents of the training images made beforehand; None encodes each batch.
      targets: the encoder's features, for `config.alignment_encoder`.
      seed: of initialisation, order, augmentation, times and noise.
      checkpoint_every: steps between checkpoints.
      log_every: steps between lines of the curve.

    Returns:
      The averaged parameters, as saved.
    """
    write_configs(config, directory, autoencoder.module, texts.null.shape[1])
    networks = Networks(directory, jnp.float32)
    objective = Objective(config, networks, texts)
    batches = images.Batches(len(train_split.pixels), config.batch_size, seed)
    steps = config.steps(batches.per_epoch)
    optimiser = loop.adamw(config.learning_rate, steps, config.warmup, config.weight_decay)

    params = jax.jit(networks.init_unet)(jax.random.key(seed))
    trained = {"unet": params, "heads": objective.heads(params, jax.random.key(seed + 1))}
    state = {
        "trained": trained,
        "optimiser": optimiser.init(trained),
        "average": jax.tree.map(jnp.copy, params),
        "step": jnp.zeros((), jnp.int32),
    }

    def batch_fn(step):
        rows = batches(step)
        batch = {"labels": train_split.labels[rows]}
        if views is None:
            batch["pixels"] = train_split.pixels[rows]
        else:
            batch["latents"] = views.rows(rows, batches.epoch)
        if targets is not None:
            batch["targets"] = targets.train[rows]
        return batch

    shown = slice(0, 4 * config.batch_size)

    @jax.jit
    def validate(params, heads):
        latents = autoencoder.latents_of(jnp.asarray(val_split.pixels[shown]))
        wanted = None if targets is None else targets.val[shown]
        return objective.validate(params, heads, latents, val_split.labels[shown], wanted)

    def evaluate(state):
        found = validate(state["average"], state["trained"]["heads"])
        return {name: float(value) for name, value in found.items()}

    state, _ = loop.train(
        workdir,
        "unet",
        state,
        make_step(config, objective, autoencoder, optimiser),
        batch_fn,
        steps,
        seed,
        config.batch_size,
        checkpoint_every,
        log_every,
        evaluate,
    )
    average = files.as_saved(state["average"])
    files.require_finite("unet", average)
    files.write_msgpack(directory / "unet" / "diffusion_flax_model.msgpack", average, np.float16)
    return average
