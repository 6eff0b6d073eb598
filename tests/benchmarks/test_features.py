"""Timing of extraction, on the goldens; and the size of the model that it can be done with."""

import jax
import numpy as np
import pytest

from semanticfl_jax.benchmarks import features, random_sd15
from semanticfl_jax.diffusion.random_weights import random_params


@pytest.fixture
def measured(goldens, monkeypatch):
    monkeypatch.setattr(features, "default_maps", lambda sd: ("vae", "down_0"))
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:2])
    lines = []
    options = {"batch_sizes": (3, 1), "repeats": 2}
    return features.measure(str(goldens / "sd1"), **options, say=lines.append), lines


def test_every_batch_size_is_timed_from_small_to_large(measured):
    found, lines = measured
    assert [(b["batch_size"], b["devices"]) for b in found["batches"]] == [(1, 1), (3, 2)]
    for batch in found["batches"]:
        seconds, rate = batch["seconds"], batch["images_per_second"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
        assert rate["max"] == pytest.approx(batch["batch_size"] / seconds["min"])
        assert batch["compile_seconds"] >= 0
    # Megabytes at least: bytes, not kilobytes.
    memory = [batch["peak_memory_bytes"] for batch in found["batches"]]
    assert 1e8 < memory[0] <= memory[1]
    assert found["peak_memory_of"] == "process"
    assert found["maps"] == ["vae", "down_0"]
    assert found["resolution"] == 64
    assert len(lines) == 3 and "3 images on 2 devices" in lines[2]


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
