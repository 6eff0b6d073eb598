"""The images of each round's cohort, gathered and sent while the round before runs.

A cohort depends on the seed and the round alone, so it is known before its round:

    draw cohort r + 1 -> dispatch round r -> [a thread: gather the images of cohort r + 1 -> send]

Devices run programs in the order of their dispatch: a cohort is drawn before the round that it is
gathered beside. They hold the images of two cohorts at a time.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.data.host_images import HostImages
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.devices.mesh import replicated
from semanticfl_jax.federated.memory import readable
from semanticfl_jax.federated.round import DrawCohort


class DataOf(Protocol):
    """The data of a run's rounds."""

    def __call__(self, number: int) -> FederatedDataset:
        """Return what round `number`, from 0, takes; to be called just before its dispatch."""


def rounds_data(
    data: FederatedDataset,
    images: np.ndarray,
    partition: Partition,
    mesh: Mesh,
    draw: DrawCohort,
    key: jax.Array,
    most: int,
) -> tuple[DataOf, FederatedDataset, list[str]]:
    """Return what rounds take of the data, with which shapes, and a line about it if it travels.

    Args:
      data: with the images, or without those that stay in host memory.
      images: all of them, [n, ...].
      partition: who owns which.
      mesh: the devices.
      draw: a round's cohort.
      key: the run's.
      most: clients of a cohort at most.
    """
    if data.images is not None:
        return lambda number: data, data, []
    placed = jax.jit(draw, out_shardings=replicated(mesh))
    (places,) = jax.eval_shape(placed, np.int32(0), data.sizes, key).shape
    kept = HostImages(images, partition, mesh, min(places // mesh.devices.size, most))
    line = (
        f"training images: {readable(images.nbytes)} in host memory; of a cohort at most "
        f"{readable(kept.bytes_on_device)} on each device, and as much of the next one"
    )
    return Prefetch(kept, data, placed, key), kept.shapes(data, places), [line]


class Prefetch:
    """`DataOf` a run whose images stay in host memory.

    Args:
      images: that are gathered.
      data: labels and index table.
      draw: jitted (number, sizes, key) -> int32 [places], the cohort, equal in all processes.
      key: the run's.
    """

    def __init__(
        self, images: HostImages, data: FederatedDataset, draw: jax.stages.Wrapped, key: jax.Array
    ):
        self._images, self._data, self._draw, self._key = images, data, draw, key
        self._under_way: dict[int, Future[FederatedDataset]] = {}
        self._thread = ThreadPoolExecutor(1)

    def __call__(self, number: int) -> FederatedDataset:
        """Return the data of round `number`, and begin to gather the next one's."""
        now, after = (
            self._under_way.get(each) or self._begin(each) for each in (number, number + 1)
        )
        self._under_way = {number + 1: after}
        return now.result()

    def _begin(self, number: int) -> Future[FederatedDataset]:
        cohort = self._draw(np.int32(number), self._data.sizes, self._key)
        if jax.default_backend() == "cpu":  # no program beside another one, see `pipeline`
            jax.block_until_ready(cohort)
        return self._thread.submit(lambda: self._images.of(self._data, np.asarray(cohort)))
