"""Long tail: classes that keep fewer and fewer of their samples."""

from __future__ import annotations

import numpy as np

from semanticfl_jax.data.partition.grouping import by_class


def long_tail(rng: np.random.Generator, labels: np.ndarray, imbalance_factor: float) -> np.ndarray:
    """Draw what is left of a data set that is given a long tail (Cao et al., NeurIPS 2019).

    Class k of K keeps `n_max * imbalance_factor ** (-k / (K - 1))` samples, rounded down, where
    n_max is the size of the largest class; at least 1, and at most all it has (our choice).

    Args:
      rng: NumPy generator.
      labels: int `[n]` in 0..K-1, each of which occurs.
      imbalance_factor: samples of the first class for each one of the last, at least 1.

    Returns:
      Sorted sample indices, int64 `[m]`.
    """
    order, sizes = by_class(rng, labels)
    rank = np.arange(len(sizes)) / max(len(sizes) - 1, 1)
    # A hundredth of a millionth more, so that 100 ** -0.5 of 1000 samples is 100 and not 99.
    kept = np.floor(sizes.max() * float(imbalance_factor) ** -rank * (1 + 1e-8)).astype(np.int64)
    kept = np.clip(kept, 1, sizes)
    position = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[position < np.repeat(kept, sizes)])
