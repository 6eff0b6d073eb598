"""What the clients' states take, said before anything starts, and refused if it cannot fit."""

import os
from typing import Any

import jax
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.base import Model

PyTree = Any

# While a checkpoint is written, the state exists once more.
_COPIES = 2


def check_client_memory(
    algorithm: Algorithm, model: Model, num_clients: int, mesh: Mesh, memory: str
) -> str | None:
    """Says how much memory the clients' states take; None if they keep nothing.

    Args:
      algorithm: whose client rule says what one client keeps.
      model: the initial model, or its shapes.
      num_clients: N.
      mesh: the devices.
      memory: "device" or "host".

    Raises:
      ValueError: if they do not fit into what is free, where that is known, with both numbers; for
        host memory in a run of several processes.
    """
    if memory == "host" and jax.process_count() > 1:
        raise ValueError(
            "client_state_memory must be device in a run of several processes: the cohort's states "
            f"would have to travel between hosts, got {memory!r}"
        )
    if algorithm.client is None:
        return None
    one = size_in_bytes(jax.eval_shape(algorithm.client.init, model))
    if one == 0:
        return None
    devices, total = mesh.devices.size, one * num_clients
    spread = num_clients % devices == 0
    each = total // devices if spread else total
    said = f"client states: {_readable(total)}, {_readable(one)} for each of {num_clients} clients"
    if memory == "device":
        how = "spread over" if spread else "whole on each of"
        said += f", {how} {devices} device{'s' * (devices > 1)}"
        here = mesh.local_devices
        free, where = free_device_memory(here[0]), "on each device"
        if free is None and here[0].platform == "cpu":  # they share the host's
            each, free, where = each * len(here), free_host_memory(), "in host memory"
        remedy = "use fewer clients, a smaller model, or client_state_memory=host (in one process)"
    else:
        said += ", in host memory"
        each, free, where = total, free_host_memory(), "in host memory"
        remedy = "use fewer clients or a smaller model"
    if free is not None and _COPIES * each > free:
        raise ValueError(
            f"{said}. With the copy that is made for a checkpoint they need "
            f"{_readable(_COPIES * each)} {where}, and {_readable(free)} are free: {remedy}"
        )
    return said


def size_in_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of what their shapes and types stand for."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_device_memory(device: jax.Device) -> int | None:
    """Bytes that a device can still give; None where it does not tell, as CPU devices."""
    figures = device.memory_stats() or {}
    if "bytes_limit" not in figures:
        return None
    return figures["bytes_limit"] - figures.get("bytes_in_use", 0)


def free_host_memory() -> int:
    """Bytes that the host can still give; all that it has, where it tells no more (macOS)."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _readable(count: int) -> str:
    """A number of bytes in decimal units, as in "588.4 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
