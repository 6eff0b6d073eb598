"""Timing of extraction, on the goldens."""

import jax
import pytest

from semanticfl_jax.benchmarks import features


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
