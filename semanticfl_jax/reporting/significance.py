"""Whether a gain that was seen over a few seeds could be chance: paired tests.

Runs of two methods with the same seed share partition, public split, first weights and cohorts, so
that the differences seed by seed are compared with 0, not the two groups with each other.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

#: Up to so many seeds every choice of signs is counted.
MAX_FLIPS = 14

#: Spread of differences, as a share of the largest, that is taken for none.
_ROUNDED = 1e-9


@dataclasses.dataclass(frozen=True)
class Paired:
    """What the differences of n pairs say.

    Attributes:
      mean: of the differences.
      low, high: the 95 % interval of the mean, by Student's t with n - 1 degrees of freedom.
      p: two-sided p value of the paired t test (Student, 1908), for normal differences. None where
        all differences are the same: they have no spread to be measured by, nor an interval.
      p_signs: two-sided p value of the sign-flip test (Fisher, 1935): the share of all 2^n choices
        of signs whose mean is as far from 0 as the one seen. It assumes symmetric differences only;
        it cannot be below 2 / 2^n, a quarter for 3 seeds. None for more than 14 pairs.
      pairs: n.
    """

    mean: float
    low: float
    high: float
    p: float | None
    p_signs: float | None
    pairs: int


def paired(differences: Sequence[float]) -> Paired | None:
    """Return the tests of paired differences against 0; None for fewer than two pairs."""
    count = len(differences)
    if count < 2:
        return None
    from scipy.special import stdtr, stdtrit  # not before: it takes a moment to import

    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    half = float(stdtrit(count - 1, 0.975)) * error
    # Differences that are the same may differ by how they were rounded.
    same = error <= _ROUNDED * max(map(abs, differences))
    p = None if same else 2 * float(stdtr(count - 1, -abs(mean) / error))
    return Paired(mean, mean - half, mean + half, p, _sign_flips(differences), count)


def _sign_flips(differences: Sequence[float]) -> float | None:
    if len(differences) > MAX_FLIPS:
        return None
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(differences))))
    means = np.abs(signs @ np.asarray(differences, float))
    # The first row is what was seen; rounding must not count it as farther than itself.
    return float(np.mean(means >= means[0] * (1 - 1e-12)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for how many there are (Holm, 1979), in the same order.

    That any of them is below 0.05 by chance alone then has a probability of at most 0.05.
    """
    count = len(p_values)
    adjusted, largest = [0.0] * count, 0.0
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
