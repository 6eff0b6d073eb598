"""What the clients' states take, said before anything starts, and refused if it cannot fit."""

import jax
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.devices.memory import free_device_memory, free_host_memory, size_in_bytes

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


def _readable(count: int) -> str:
    """A number of bytes in decimal units, as in "588.4 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
