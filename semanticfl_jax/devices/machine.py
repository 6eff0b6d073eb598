"""The machine that figures were measured on: what it is, how busy others are, peak memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax

from semanticfl_jax.devices.cpu_threads import available_cores

#: Share of the cores in use by others from which a timing is doubted.
BUSY = 0.05


def host() -> dict[str, Any]:
    """Return processor, usable cores, memory in bytes and system; start no backend."""
    model = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": platform.platform(),
    }


def devices() -> dict[str, Any]:
    """Return kind and number of JAX's devices, and the memory of one, None if it is unknown."""
    first = jax.devices()[0]
    return {
        "device_kind": first.device_kind,
        "devices": jax.device_count(),
        "device_memory_bytes": (first.memory_stats() or {}).get("bytes_limit"),
    }


def load(seconds: float = 1.0) -> dict[str, float]:
    """Load average of the last minute, and the share of the cores in use during `seconds`."""
    return {"load_average": os.getloadavg()[0], "busy_before": busy_share(seconds)}


def busy_share(seconds: float = 2.0) -> float:
    """Share of all cores' time that is in use now, from 0 to 1; nan where Linux does not tell."""
    if not Path("/proc/stat").is_file():
        return float("nan")

    def read() -> tuple[int, int]:
        # user nice system idle iowait irq softirq steal; what follows is counted within user.
        ticks = [int(word) for word in Path("/proc/stat").read_text().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def peak_memory() -> dict[str, Any]:
    """Return the most memory in use so far: it never falls while the process lives.

    Returns:
      `peak_memory_bytes`, and `peak_memory_of`: "device", the fullest one, where the backend tells,
      else "process", everything resident.
    """
    devices = jax.local_devices()
    told = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    found = [peak for peak in told if peak is not None]
    if len(found) == len(devices):
        return {"peak_memory_bytes": max(found), "peak_memory_of": "device"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = peak if sys.platform == "darwin" else peak * 1024
    return {"peak_memory_bytes": peak, "peak_memory_of": "process"}
