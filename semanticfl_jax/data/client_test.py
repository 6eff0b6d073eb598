"""Images that clients keep for testing: a share of each client's own, class by class."""

from __future__ import annotations

import numpy as np

from semanticfl_jax.data.partition import Partition
from semanticfl_jax.randomness import HostStream, host_generator


def hold_out(
    partition: Partition, labels: np.ndarray, share: float, seed: int
) -> tuple[Partition, Partition]:
    """Split every client's samples into those it trains on and those it is tested on.

    A client of n samples keeps round(share n) for testing, at least 1 if it has 2, and leaves at
    least 1 for training; one of a single sample is not tested. Of each class it keeps its quota,
    rounded up or down, by systematic sampling: in the order of classes, each in random order,
    every (n / kept)-th sample is taken, from a random place on. Every sample of a client is kept
    with the same probability. (Our choice.)

    Args:
      partition: of N clients.
      labels: [n] integers, of all samples that `partition` points into; of samples without a class
        all alike.
      share: from 0 to 1.
      seed: of the run; the split depends on it and the partition alone.

    Returns:
      Two partitions of N clients, for training and for testing, whose indices are in the order of
      `partition`.
    """
    rng, sizes = host_generator(seed, HostStream.CLIENT_TEST), partition.sizes
    kept = np.clip(np.rint(share * sizes).astype(np.int64), 1, np.maximum(sizes - 1, 0))
    owner = np.repeat(np.arange(partition.num_clients), sizes)
    drawn = rng.random(len(owner))
    first = rng.integers(0, np.maximum(sizes, 1))[owner]
    order = np.lexsort((drawn, np.asarray(labels)[partition.indices], owner))
    # Of the owner's ranks 0 .. n - 1, `kept` of them begin a new multiple of n.
    rank = np.arange(len(owner)) - partition.offsets[owner]
    reached = rank * kept[owner] + first
    size = sizes[owner]
    tested = np.zeros(len(owner), bool)
    tested[order] = (reached + kept[owner]) // size > reached // size
    return _where(partition, ~tested, owner), _where(partition, tested, owner)


def _where(partition: Partition, chosen: np.ndarray, owner: np.ndarray) -> Partition:
    """Return the part of a partition where `chosen` bool [total] is True."""
    counts = np.bincount(owner[chosen], minlength=partition.num_clients)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Partition(partition.indices[chosen], offsets, partition.overlapping)
