"""Stable Diffusion 1.5 with random weights: its real size, for timing where its weights are not.

The configurations hold the values that stable-diffusion-v1-5 is published with, as far as they
decide the networks: U-Net of 860 million parameters, VAE of 84, CLIP-L text tower of 123. The
tokenizer is the bundled checkpoint's: it has fewer words, which costs the tower no time.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from semanticfl_jax.diffusion.fingerprint import BUNDLED_CHECKPOINTS
from semanticfl_jax.diffusion.networks import Networks
from semanticfl_jax.diffusion.random_weights import random_params
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion

NAME = "random-sd15"

CONFIGS = {
    "unet/config.json": {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "vae/config.json": {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder/config.json": {
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 1,
        "projection_dim": 768,
        "vocab_size": 49408,
    },
    "scheduler/scheduler_config.json": {
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
    },
}


def networks(dtype: Any = jnp.float32) -> Networks:
    """Return the networks that `CONFIGS` describe, computing in `dtype`, without weights."""
    with tempfile.TemporaryDirectory() as directory:
        for name, values in CONFIGS.items():
            path = Path(directory, name)
            path.parent.mkdir()
            path.write_text(json.dumps(values))
        shutil.copytree(BUNDLED_CHECKPOINTS["tiny-sd"] / "tokenizer", Path(directory, "tokenizer"))
        return Networks(Path(directory), jnp.dtype(dtype))


def random_sd15(dtype: Any = jnp.float32, seed: int = 0) -> StableDiffusion:
    """Return the model: 4.3 GB in float32. It has no files, and hence no fingerprint."""
    described = networks(dtype)
    params = {
        component: random_params(shapes, seed, dtype)
        for component, shapes in described.expected_params().items()
    }
    return StableDiffusion(params, described, Path(NAME))
