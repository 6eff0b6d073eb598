"""Meshes: a single axis, on devices whose numbers can be trusted; in a run it carries clients."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from semanticfl_jax.devices import cpu_threads
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree

CLIENTS = "clients"


def device_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Return a mesh over `devices`, in their order, along one axis.

    Raises:
      SemanticFLError: on CPU, if XLA has too few threads (`cpu_threads`).
    """
    if devices[0].platform == "cpu":
        here = sum(device.process_index == jax.process_index() for device in devices)
        cpu_threads.check(here, jax.local_device_count())
    # `jax.make_mesh` would reorder a TPU's devices, and refuse some of them that are no cuboid.
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))


def make_mesh(num_devices: int = 0, useful: int | None = None) -> Mesh:
    """Return a mesh over the devices that a run takes (`devices_of_run`), axis "clients"."""
    return device_mesh(devices_of_run(jax.devices(), num_devices, useful), CLIENTS)


def devices_of_run(
    devices: Sequence[jax.Device], num_devices: int = 0, useful: int | None = None
) -> list[jax.Device]:
    """Return `num_devices` of some devices, the first of each process, process by process.

    Args:
      devices: all that there are, here or in a plan.
      num_devices: how many; 0 takes all, but off TPUs no more than `useful`.
      useful: clients a round: further devices would have none to train.

    Raises:
      SemanticFLError: if there are not that many devices, or not equally many for every process.
    """
    if num_devices > len(devices):
        raise SemanticFLError(f"num_devices must be at most {len(devices)} here, got {num_devices}")
    numbers = sorted({device.process_index for device in devices})
    processes = len(numbers)
    # For many parts of a TPU slice that are no slice themselves, XLA compiles no exchange. Devices
    # without a client take no steps, and change no figure.
    most = len(devices)
    if useful is not None and devices[0].platform != "tpu":
        most = min(most, useful)
    count = num_devices or most
    if num_devices % processes:
        raise SemanticFLError(
            f"num_devices must be a multiple of the {processes} processes, got {num_devices}"
        )
    if count < processes:
        raise SemanticFLError(
            f"clients_per_round must be at least the number of processes, {processes}, got {useful}"
        )
    found = []
    for number in numbers:
        own = [device for device in devices if device.process_index == number]
        found += own[: count // processes]
    return found


def describe(mesh: Mesh) -> str:
    """Return how many devices of what kind, as in "8 x NVIDIA H100"."""
    processes = jax.process_count()
    spread = f" in {processes} processes" if processes > 1 else ""
    return f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}{spread}"


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding in which every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Return the sharding that spreads the leading dimension over the devices."""
    return NamedSharding(mesh, PartitionSpec(CLIENTS))


def on_each_device(
    function: Callable[..., PyTree], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., PyTree]:
    """Return `function` as every device runs it on its own part: `jax.shard_map`, unchecked.

    JAX's check gives values that differ between devices another type. A loop that begins at a
    constant, as in Flax's recurrent layers, then is a type error in code that knows of no devices.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
