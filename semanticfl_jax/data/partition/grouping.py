"""Sorting samples into groups without loops: what partition schemes are made of."""

from __future__ import annotations

import numpy as np


def by_class(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample indices class after class, shuffled within each; and samples of each class `[K]`.

    Args:
      rng: NumPy generator.
      labels: int `[n]` in 0..K-1.
    """
    order = rng.permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")], np.bincount(labels)


def by_owner(
    order: np.ndarray, owner: np.ndarray, num_clients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a partition's (indices, offsets) where sample `order[i]` belongs to `owner[i]`.

    A client's samples keep their order.
    """
    sizes = np.bincount(owner, minlength=num_clients)
    return order[np.argsort(owner, kind="stable")], offsets_of(sizes)


def offsets_of(sizes: np.ndarray) -> np.ndarray:
    """Return where each of `sizes` `[N]` begins when they follow one another, int64 `[N + 1]`."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def equal_offsets(total: int, parts: int) -> np.ndarray:
    """Return borders of `parts` parts that differ by at most 1, int64 `[parts + 1]`."""
    return np.arange(parts + 1, dtype=np.int64) * total // parts
