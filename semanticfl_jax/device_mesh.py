"""The one way a mesh is made: a single axis, on devices whose numbers can be trusted."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from semanticfl_jax import cpu_threads


def device_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """A mesh over `devices`, in their order, along one axis.

    Raises:
      ValueError: on CPU, if XLA has no thread to spare (`cpu_threads`).
    """
    if devices[0].platform == "cpu":
        here = sum(device.process_index == jax.process_index() for device in devices)
        cpu_threads.check(here, jax.local_device_count())
    # `jax.make_mesh` would reorder a TPU's devices, and refuse some of them that are no cuboid.
    return Mesh(np.asarray(devices), (axis,), axis_types=(AxisType.Auto,))
