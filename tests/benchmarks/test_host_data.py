"""The benchmark of images in host memory."""

import numpy as np
import pytest

from semanticfl_jax.benchmarks import host_data
from semanticfl_jax.config import ExperimentConfig, ModelConfig, RuntimeConfig

CONFIG = ExperimentConfig(
    num_clients=6,
    clients_per_round=2,
    local_epochs=1,
    public_per_class=0,
    augmentation=(),
    model=ModelConfig(name="linear"),
    runtime=RuntimeConfig(num_devices=2, eval_batch_size=10),
)
PICTURE = host_data.SIDE**2 * 3


def test_both_memories_are_timed_and_the_devices_hold_a_cohort():
    figures = host_data.measure(CONFIG, rounds=2, turns=1, say=lambda line: None)
    assert figures["images_bytes"] == figures["images"] * PICTURE == 60 * PICTURE
    memories = figures["memories"]
    host, device = (memories[name]["arguments_bytes"] for name in ("host", "device"))
    # A client's images on each of two devices, in place of all.
    assert device - host == pytest.approx((60 - 10) * PICTURE, abs=100)
    for row in memories.values():
        assert row["seconds_per_round"]["min"] > 0
    assert len(figures["resident_bytes"]) == 3 and min(figures["resident_bytes"]) > 1e6
    assert figures["gather_seconds"] > 0 and figures["host_over_device"] > 0


def test_images_that_do_not_fit_are_timed_in_host_memory_alone(monkeypatch):
    monkeypatch.setattr(host_data, "free_host_memory", lambda: 60 * PICTURE)
    figures = host_data.measure(CONFIG, rounds=1, turns=1, say=lambda line: None)
    assert list(figures["memories"]) == ["host"] and "host_over_device" not in figures


def test_the_file_of_noise_is_mapped():
    with host_data.memory_mapped(3, lambda line: None) as dataset:
        images = dataset.train_images
        assert isinstance(images, np.memmap) and images.shape == (3, 64, 64, 3)
        assert len(np.unique(images)) == 256
