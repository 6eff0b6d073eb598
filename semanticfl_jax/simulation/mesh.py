"""The devices of a run: a one-dimensional mesh whose axis carries clients."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

CLIENTS = "clients"


def make_mesh(num_devices: int = 0, useful: int | None = None) -> Mesh:
    """A mesh over the first `num_devices` devices, axis "clients".

    Args:
      num_devices: how many; 0 takes all, but no more than `useful`.
      useful: clients a round: further devices would have none to train.

    Raises:
      ValueError: if there are not that many devices.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(f"num_devices must be at most {len(devices)} here, got {num_devices}")
    devices = devices[: num_devices or min(len(devices), useful or len(devices))]
    return jax.make_mesh((len(devices),), (CLIENTS,), (AxisType.Auto,), devices=devices)


def describe(mesh: Mesh) -> str:
    """How many devices of what kind, as in "8 x NVIDIA H100"."""
    return f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}"


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading dimension is spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(CLIENTS))
