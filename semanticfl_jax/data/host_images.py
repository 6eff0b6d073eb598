"""Images in host memory or memory-mapped, of which the devices get some clients' at a time.

A device gets the images of those clients alone that it trains, in one array of fixed length, so
that one program serves all cohorts. That length is what the largest clients would take together.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.devices.cpu_threads import available_cores
from semanticfl_jax.devices.mesh import split

# Threads that gather images: they wait for memory, or for a disk, more than they compute.
_THREADS = 16
# Images that a thread takes at a time, at least.
_FEWEST = 256


class HostImages:
    """The clients' images, to be gathered and sent.

    Attributes:
      capacity: images of some clients on each device, at most.
    """

    def __init__(self, images: np.ndarray, partition: Partition, mesh: Mesh, most: int):
        """Prepare to gather.

        Args:
          images: uint8 [n, H, W, 3], or float32 or int32 [n, ...], usually memory-mapped.
          partition: who owns which.
          mesh: the devices.
          most: clients on each device at most.
        """
        # As plain memory: indexing a `np.memmap` makes objects of its kind, which takes longer.
        self._images = np.asarray(images).reshape(len(images), -1)
        self._indices, self._offsets = partition.indices, partition.offsets
        self._sizes = partition.sizes
        self._mesh = mesh
        self._several = min(_THREADS, 2 * available_cores())
        self._threads = ThreadPoolExecutor(self._several)
        self.capacity = largest_share(partition.sizes, most)

    @property
    def bytes_on_device(self) -> int:
        """Bytes of some clients' images on each device."""
        return self.capacity * self._images.shape[1] * self._images.itemsize

    def of(self, data: FederatedDataset, clients: np.ndarray) -> FederatedDataset:
        """Return `data` with the images of some clients, on their way to the devices.

        Args:
          data: with labels and index table of the same partition.
          clients: int32 [devices * places], the first `places` for the first device of the mesh and
            so on; -1 in empty ones.
        """
        shares, devices = clients.reshape(self._mesh.devices.size, -1), self._mesh.devices.flat
        parts = []
        for share, device in zip(shares, devices, strict=True):
            if device.process_index == jax.process_index():
                starts, images = self._gather(share)
                arrays = (images, share.astype(np.int32), starts.astype(np.int32))
                parts.append(jax.device_put(arrays, device))
        images, cohort, starts = (self._joined(list(each)) for each in zip(*parts, strict=True))
        return dataclasses.replace(data, images=images, cohort=cohort, starts=starts)

    def shapes(self, data: FederatedDataset, places: int) -> FederatedDataset:
        """Return `data` with the shapes of what `of` adds, for `places` clients on all devices."""
        rows = self._mesh.devices.size * self.capacity
        return with_shapes(data, rows, places, split(self._mesh))

    def _gather(self, clients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where each client's images begin, and the images, [capacity, d]."""
        sizes = np.where(clients < 0, 0, self._sizes[clients])
        starts = np.cumsum(sizes) - sizes
        places = np.repeat(self._offsets[clients] - starts, sizes) + np.arange(sizes.sum())
        # Anew for each cohort: devices may still read the last one's, and CPUs compute on it.
        found = np.zeros((self.capacity, self._images.shape[1]), self._images.dtype)
        self._fill(found, self._indices[places])
        return starts, found

    def _fill(self, found: np.ndarray, samples: np.ndarray) -> None:
        """Copy the images of `samples` into the first rows of `found`, in several threads."""
        step = max(_FEWEST, -(-len(samples) // self._several))

        def copy(begin: int) -> None:
            some = samples[begin : begin + step]
            # "clip": with "raise", NumPy would copy all of it once more; indices are in range.
            out = found[begin : begin + len(some)]
            np.take(self._images, some, axis=0, out=out, mode="clip")

        for _ in self._threads.map(copy, range(0, len(samples), step)):
            pass  # raises what a thread raised

    def _joined(self, parts: list[jax.Array]) -> jax.Array:
        """Return the devices' parts of an array as one array over the mesh."""
        shape = (self._mesh.devices.size * parts[0].shape[0], *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, split(self._mesh), parts)


def largest_share(sizes: np.ndarray, most: int) -> int:
    """Return the images that `most` clients can have together, 1 at least.

    Args:
      sizes: int [N], images of each client.
      most: clients at most.
    """
    return max(1, int(np.sort(sizes)[max(0, len(sizes) - most) :].sum()))


def with_shapes(
    data: FederatedDataset, rows: int, places: int, sharding: Sharding
) -> FederatedDataset:
    """Return `data` with shapes in place of some clients' images.

    Args:
      data: with labels and index table, or their shapes.
      rows: images on all devices together.
      places: clients on all devices together.
      sharding: that spreads over the devices.
    """

    def shape(sizes: tuple[int, ...], dtype: type | np.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    return dataclasses.replace(
        data,
        images=shape((rows, int(np.prod(data.image_shape))), data.image_dtype),
        cohort=shape((places,), np.int32),
        starts=shape((places,), np.int32),
    )
