"""Stage 3: the noise predictor in latent space, conditioned on the text tower's token states.

The loss is DDPM's (Ho et al. 2020, equation 14) in latents (Rombach et al. 2022), plus one term
[ours]: features of images without a prompt are aligned with the text embeddings of their classes,
through linear heads that are thrown away. The result is a plain latent diffusion checkpoint.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.diffusion.features import add_noise
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.pretraining import files, images, loop
from semanticfl_jax.pretraining.config import UnetConfig
from semanticfl_jax.pretraining.text import unit

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
    """`unet/config.json` and `scheduler/scheduler_config.json`, for the parts that are there.

    As in Stable Diffusion, every level but the lowest attends to the text.
    """
    attending = config.levels - 1
    settings = {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": config.heads,
        "block_out_channels": [config.width * min(2**i, 4) for i in range(config.levels)],
        "center_input_sample": False,
        "cross_attention_dim": text_width,
        "down_block_types": ["CrossAttnDownBlock2D"] * attending + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": vae_module.latent_channels,
        "layers_per_block": config.layers_per_block,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": vae_module.latent_channels,
        "sample_size": vae_module.sample_size >> (len(vae_module.block_out_channels) - 1),
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * attending,
    }
    files.write_json(directory / "unet" / "config.json", settings)
    files.write_json(directory / "scheduler" / "scheduler_config.json", SCHEDULER)


def augment(pixels: jax.Array, key: jax.Array, shift: int) -> jax.Array:
    """Mirrors and shifts uint8 images [n, h, w, 3] at random, by up to `shift` pixels."""
    count, height, width, _ = pixels.shape
    key_flip, key_shift = jax.random.split(key)
    flip = jax.random.bernoulli(key_flip, shape=(count, 1, 1, 1))
    pixels = jnp.where(flip, pixels[:, :, ::-1], pixels)
    padded = jnp.pad(pixels, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode="reflect")
    offsets = jax.random.randint(key_shift, (count, 2), 0, 2 * shift + 1)

    def cut(image, offset):
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, 3))

    return jax.vmap(cut)(padded, offsets)


def draw_times(config: UnetConfig, count: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Diffusion times [count] and whether a row goes without its prompt [count].

    A share of the rows has times below `small_time`, where the features are read later. There the
    image itself is in sight and the prompt matters little: most of these rows go without it, and
    learn to see. The other rows have any time, and `null_share` of them no prompt.
    """
    key_any, key_small, key_null = jax.random.split(key, 3)
    small = jnp.arange(count) < round(config.small_share * count)
    low = jax.random.randint(key_small, (count,), 0, config.small_time)
    times = jnp.where(small, low, jax.random.randint(key_any, (count,), 0, 1000))
    chance = jnp.where(small, config.small_null_share, config.null_share)
    return times, jax.random.uniform(key_null, (count,)) < chance


def alignment_loss(heads, pooled, embeddings, labels, rows, temperature: float = 0.07):
    """Cross-entropy of classifying each map by the cosine to the classes' text embeddings.

    Args:
      heads: per map, [channels, width].
      pooled: per map, its average over space [n, channels].
      embeddings: [classes, width]: unit rows, centred before.
      labels: [n].
      rows: [n] bool, the rows that count.
      temperature: divides the cosines.
    """
    weights = rows / jnp.maximum(rows.sum(), 1)
    total = 0.0
    for name, head in heads.items():
        logits = unit(pooled[name] @ head) @ embeddings.T / temperature
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        total += (losses * weights).sum() / len(heads)
    return total


def train(
    config: UnetConfig,
    directory: Path,
    workdir: Path,
    train_split: images.Images,
    val_split: images.Images,
    vae_module: Any,
    vae_params: Any,
    scaling_factor: float,
    class_states: np.ndarray,
    class_pooled: np.ndarray,
    null_states: np.ndarray,
    seed: int,
    checkpoint_every: int,
    log_every: int,
) -> Any:
    """Trains the noise predictor and writes the averaged weights to `unet/`, and `scheduler/`.

    Args:
      config: sizes and schedule.
      directory: the checkpoint, in diffusers' layout.
      workdir: for the stage's own checkpoint and curve.
      train_split: images and labels.
      val_split: the same, for the curve's `val_mse`.
      vae_module: of stage 2; frozen.
      vae_params: its parameters.
      scaling_factor: latents are multiplied by it.
      class_states: [classes, tokens, d] token states of each class's prompt.
      class_pooled: [classes, d] pooled text embeddings.
      null_states: [tokens, d] token states of the empty prompt.
      seed: of initialisation, order, augmentation, times and noise.
      checkpoint_every: steps between checkpoints.
      log_every: steps between lines of the curve.

    Returns:
      The averaged parameters, as saved.
    """
    write_configs(config, directory, vae_module, class_states.shape[2])
    networks = Networks(directory, jnp.float32)
    batches = images.Batches(len(train_split.pixels), config.batch_size, seed)
    steps = config.steps(batches.per_epoch)
    optimiser = loop.adamw(config.learning_rate, steps, config.warmup, config.weight_decay)
    alphas = jnp.asarray(networks.alphas_cumprod, jnp.float32)
    aligned = ("mid", *(f"up_{i}" for i in range(config.levels)))
    maps = aligned if config.alignment else ()

    params = jax.jit(networks.init_unet)(jax.random.key(seed))
    heads = _heads(networks, params, maps, class_states, jax.random.key(seed + 1))
    trained = {"unet": params, "heads": heads}
    state = {
        "trained": trained,
        "optimiser": optimiser.init(trained),
        "average": jax.tree.map(jnp.copy, params),
        "step": jnp.zeros((), jnp.int32),
    }
    centred = class_pooled - class_pooled.mean(0)
    embeddings = unit(jnp.asarray(centred))
    class_states, null_states = jnp.asarray(class_states), jnp.asarray(null_states)

    def latents_of(pixels):
        inputs = (pixels.astype(jnp.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
        encoded = vae_module.apply({"params": vae_params}, inputs, method=vae_module.encode)
        return encoded.latent_dist.mean * scaling_factor

    def noise_loss(params, latents, times, states, key):
        noise = jax.random.normal(key, latents.shape)
        noised = add_noise(latents, noise, alphas[times][:, None, None, None])
        predicted, found = networks.apply_unet(params, noised, times, states, maps)
        pooled = {name: value.mean((1, 2)) for name, value in found.items()}
        return ((predicted - noise) ** 2).mean((1, 2, 3)), pooled

    def step(state, batch, key):
        key_augment, key_times, key_noise = jax.random.split(key, 3)
        latents = latents_of(augment(batch["pixels"], key_augment, config.shift))
        times, null = draw_times(config, len(latents), key_times)
        states = class_states[batch["labels"]]
        states = jnp.where(null[:, None, None], null_states[None], states)

        def loss_fn(trained):
            mse, pooled = noise_loss(trained["unet"], latents, times, states, key_noise)
            losses = {"mse": mse.mean()}
            loss = losses["mse"]
            if maps:
                rows = null & (times < config.small_time)
                losses["alignment"] = alignment_loss(
                    trained["heads"], pooled, embeddings, batch["labels"], rows
                )
                loss += config.alignment * losses["alignment"]
            return loss, losses

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

    shown = slice(0, 4 * config.batch_size)
    val_times = jnp.asarray(np.linspace(0, 999, len(val_split.labels[shown])).astype(np.int32))

    @jax.jit
    def validate(params):
        latents = latents_of(jnp.asarray(val_split.pixels[shown]))
        states = class_states[val_split.labels[shown]]
        losses, _ = noise_loss(params, latents, val_times, states, jax.random.key(0))
        return losses.mean()

    state, _ = loop.train(
        workdir,
        "unet",
        state,
        step,
        lambda number: _rows(train_split, batches(number)),
        steps,
        seed,
        config.batch_size,
        checkpoint_every,
        log_every,
        lambda state: {"val_mse": float(validate(state["average"]))},
    )
    average = files.as_saved(state["average"])
    files.write_msgpack(directory / "unet" / "diffusion_flax_model.msgpack", average, np.float16)
    return average


def _rows(split: images.Images, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"pixels": split.pixels[rows], "labels": split.labels[rows]}


def _heads(networks, params, maps, class_states, key) -> dict[str, jax.Array]:
    """Random [channels, width] matrices, one a map."""
    tokens, width = class_states.shape[1:]
    unet = networks.unet
    latents = jnp.zeros((1, unet.sample_size, unet.sample_size, unet.in_channels))
    inputs = (latents, jnp.zeros(1, jnp.int32), jnp.zeros((1, tokens, width)))
    _, found = jax.eval_shape(lambda params: networks.apply_unet(params, *inputs, maps), params)
    channels = {name: shape.shape[-1] for name, shape in found.items()}
    return {
        name: jax.random.normal(jax.random.fold_in(key, i), (count, width)) / count**0.5
        for i, (name, count) in enumerate(channels.items())
    }
