"""The memory of clients' states and of a cohort's updates: stated before a run, or refused.

A round that keeps neither takes the memory of a chunk, whatever the number of clients.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.devices.memory import free_device_memory, free_host_memory, size_in_bytes
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.aggregation import updates_in_bytes
from semanticfl_jax.federated.client_update import init_state

# While a checkpoint is written, clients' states exist once more; so do updates as they are sorted.
_COPIES = 2


def check_client_memory(
    algorithm: Algorithm, model: Model, num_clients: int, mesh: Mesh, memory: str
) -> str | None:
    """Return a line about the memory of the clients' states; None if they keep nothing.

    Args:
      algorithm: whose client rule and transforms say what one client keeps.
      model: the initial model, or its shapes.
      num_clients: N.
      mesh: the devices.
      memory: "device", "host" or "disk".

    Raises:
      SemanticFLError: if they do not fit into what is free, where that is known, with both numbers.
        Processes of one machine are not known to share its memory.
    """
    one = state_bytes(algorithm, model)
    if one == 0:
        return None
    copy: str | None = "the copy that is made for a checkpoint"
    devices, total = mesh.devices.size, one * num_clients
    spread = num_clients % devices == 0
    said = f"client states: {readable(total)}, {readable(one)} for each of {num_clients} clients"
    if memory == "device":
        how = "spread over" if spread else "whole on each of"
        said += f", {how} {_counted(devices)}"
        place = _on_devices(mesh, total // devices if spread else total)
        remedy = "use fewer clients, a smaller model, or client_state_memory=host or disk"
    elif memory == "disk":
        return f"{said}, on the disk as clients take part"
    else:
        said, processes = f"{said}, in host memory", jax.process_count()
        if processes > 1:  # their checkpoints need no copy (`HostRows`)
            said, copy = f"{said} of {processes} processes, a share of each", None
        share = one * -(-num_clients // processes)
        place = _Place(share, free_host_memory(), "in host memory")
        remedy = "use fewer clients, a smaller model, or client_state_memory=disk"
    _refuse(said, place, copy, remedy)
    return said


def state_bytes(algorithm: Algorithm, model: Model) -> int:
    """Return the bytes of the state that one client keeps; `model` may be its shapes."""
    return size_in_bytes(jax.eval_shape(lambda model: init_state(algorithm, model), model))


def check_update_memory(
    algorithm: Algorithm, model: Model, clients_per_round: int, mesh: Mesh
) -> str | None:
    """Return a line about the memory of a cohort's updates; None if they are not kept.

    Args:
      algorithm: whose aggregator says whether it needs the single updates.
      model: the model, or its shapes.
      clients_per_round: m.
      mesh: the devices.

    Raises:
      SemanticFLError: if they do not fit into what is free, where that is known, with both numbers.
    """
    total = updates_in_bytes(algorithm, model, clients_per_round)
    if total == 0:
        return None
    said = (
        f"updates for the {algorithm.aggregator.name}: {readable(total)}, "
        f"{readable(total // clients_per_round)} of each of {clients_per_round} clients, "
        f"whole on each of {_counted(mesh.devices.size)}"
    )
    remedy = "use fewer clients a round, a smaller model, or the mean"
    _refuse(said, _on_devices(mesh, total), "the copy in which they are put in order", remedy)
    return said


def check_image_memory(images: np.ndarray, mesh: Mesh) -> None:
    """Raise `SemanticFLError` if all training images do not fit on a device, where that is known.

    Args:
      images: [n, ...], of any type.
      mesh: the devices.
    """
    free = free_device_memory(mesh.local_devices[0])
    if free is not None and images.nbytes > free:
        raise SemanticFLError(
            f"the training images take {readable(images.nbytes)} on each device, and "
            f"{readable(free)} are free: runtime.data_memory=host keeps them in host memory"
        )


class _Place(NamedTuple):
    """Bytes that are needed somewhere, those that are free there, if known, and where it is."""

    needed: int
    free: int | None
    where: str


def _on_devices(mesh: Mesh, each: int) -> _Place:
    """Return the place of `each` bytes on every device."""
    here = mesh.local_devices
    free = free_device_memory(here[0])
    if free is None and here[0].platform == "cpu":  # they share the host's
        return _Place(each * len(here), free_host_memory(), "in host memory")
    return _Place(each, free, "on each device")


def _refuse(said: str, place: _Place, copy: str | None, remedy: str) -> None:
    """Raise `SemanticFLError` if what is `said` does not fit, with its copy if there is one."""
    needed, free, where = place.needed, place.free, place.where
    if copy is not None:
        needed *= _COPIES
    if free is not None and needed > free:
        they = "They" if copy is None else f"With {copy} they"
        raise SemanticFLError(
            f"{said}. {they} need {readable(needed)} {where}, and {readable(free)} are free: "
            f"{remedy}"
        )


def _counted(devices: int) -> str:
    return f"{devices} device{'s' * (devices > 1)}"


def readable(count: int) -> str:
    """Return a number of bytes in decimal units, as in "588.4 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
