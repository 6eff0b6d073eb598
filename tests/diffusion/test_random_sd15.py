"""Stable Diffusion with random weights: its size, and that it runs."""

import numpy as np

from semanticfl_jax.diffusion import random_sd15
from semanticfl_jax.diffusion.random_weights import random_params


def test_the_random_model_has_the_size_of_stable_diffusion():
    networks = random_sd15.networks()
    counts = {
        name: sum(int(np.prod(shape)) for shape in shapes.values())
        for name, shapes in networks.expected_params().items()
    }
    # As published with stable-diffusion-v1-5.
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert networks.vae_factor == 8 and networks.unet.sample_size * networks.vae_factor == 512
    assert list(networks.maps) == [
        *(f"down_{i}" for i in range(4)),
        "mid",
        *(f"up_{i}" for i in range(4)),
    ]


def test_it_is_built_of_leaves_and_runs(monkeypatch):
    monkeypatch.setitem(random_sd15.CONFIGS, "unet/config.json", small_unet())
    monkeypatch.setitem(random_sd15.CONFIGS, "vae/config.json", small_vae())
    monkeypatch.setitem(random_sd15.CONFIGS, "text_encoder/config.json", small_text())
    sd = random_sd15.random_sd15("bfloat16", seed=1)
    expected = random_params({("conv_in", "kernel"): (3, 3, 4, 32)}, 1, "bfloat16")
    np.testing.assert_array_equal(
        sd.params["unet"]["conv_in"]["kernel"], expected["conv_in"]["kernel"]
    )
    assert sd.text(["a cat"])[0].shape == (1, 77, 32)
    assert sd.image_size == 128


def small_unet():
    change = {"block_out_channels": [32] * 4, "cross_attention_dim": 32, "sample_size": 16}
    return {**random_sd15.CONFIGS["unet/config.json"], **change, "layers_per_block": 1}


def small_vae():
    change = {"block_out_channels": [32] * 4, "layers_per_block": 1}
    return {**random_sd15.CONFIGS["vae/config.json"], **change}


def small_text():
    change = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    return {**random_sd15.CONFIGS["text_encoder/config.json"], **change, "num_hidden_layers": 1}
