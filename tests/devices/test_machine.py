"""What is said of the machine."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from semanticfl_jax.devices import machine


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="Linux tells it in /proc/stat")
def test_busy_share_is_a_share():
    assert 0 <= machine.busy_share(seconds=0.05) <= 1


def test_host_and_devices_are_named():
    host, devices = machine.host(), machine.devices()
    assert 1 <= host["cores"] <= os.cpu_count()
    assert host["memory_bytes"] > 2**28 and host["system"]
    assert devices == {"device_kind": "cpu", "devices": 8, "device_memory_bytes": None}


def test_peak_memory_is_in_bytes_and_never_falls():
    before = machine.peak_memory()
    block = np.ones(2**25)  # 256 MiB, written to
    during = machine.peak_memory()
    assert before["peak_memory_of"] == "process"
    assert during["peak_memory_bytes"] >= max(before["peak_memory_bytes"], block.nbytes)
    del block
    assert machine.peak_memory()["peak_memory_bytes"] >= during["peak_memory_bytes"]


def test_memory_is_the_devices_own_where_it_tells(monkeypatch):
    class Device:
        def __init__(self, peak):
            self.peak = peak

        def memory_stats(self):
            return {"peak_bytes_in_use": self.peak}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(3), Device(5)])
    expected = {"peak_memory_bytes": 5, "peak_memory_of": "device"}
    assert machine.peak_memory() == expected
