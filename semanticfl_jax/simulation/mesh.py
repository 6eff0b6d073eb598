"""The devices of a run: a one-dimensional mesh whose axis carries clients."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semanticfl_jax.device_mesh import device_mesh

PyTree = Any

CLIENTS = "clients"


def make_mesh(num_devices: int = 0, useful: int | None = None) -> Mesh:
    """A mesh over `num_devices` devices, the first of each process, axis "clients".

    Args:
      num_devices: how many; 0 takes all, but no more than `useful`.
      useful: clients a round: further devices would have none to train.

    Raises:
      ValueError: if there are not that many devices, or not equally many for every process; on CPU,
        if XLA has no thread to spare (`cpu_threads`).
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(f"num_devices must be at most {len(devices)} here, got {num_devices}")
    count = num_devices or min(len(devices), useful or len(devices))
    processes = jax.process_count()
    if num_devices % processes:
        raise ValueError(
            f"num_devices must be a multiple of the {processes} processes, got {num_devices}"
        )
    if count < processes:
        raise ValueError(
            f"clients_per_round must be at least the number of processes, {processes}, got {useful}"
        )
    devices = [
        device
        for index in range(processes)
        for device in jax.local_devices(process_index=index)[: count // processes]
    ]
    return device_mesh(devices, CLIENTS)


def describe(mesh: Mesh) -> str:
    """How many devices of what kind, as in "8 x NVIDIA H100"."""
    processes = jax.process_count()
    spread = f" in {processes} processes" if processes > 1 else ""
    return f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}{spread}"


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading dimension is spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(CLIENTS))


def varying(tree: PyTree) -> PyTree:
    """`tree` as values that may differ from device to device, inside `jax.shard_map`."""
    return jax.tree.map(lambda x: jax.lax.pcast(x, CLIENTS, to="varying"), tree)
