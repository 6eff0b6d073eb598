"""The devices of a run: a one-dimensional mesh whose axis carries clients."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

CLIENTS = "clients"


def make_mesh(num_devices: int = 0) -> Mesh:
    """A mesh over the first `num_devices` devices (0: all), axis "clients".

    Raises:
      ValueError: if there are not that many devices.
    """
    devices = jax.devices()
    if num_devices > len(devices):
        raise ValueError(f"num_devices must be at most {len(devices)} here, got {num_devices}")
    devices = devices[: num_devices or len(devices)]
    return jax.make_mesh((len(devices),), (CLIENTS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading dimension is spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(CLIENTS))
