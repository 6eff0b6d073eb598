"""What runs came to, compared to the bit: all but how long they took."""

import jax
import numpy as np

from semanticfl_jax.reporting.writers.metrics import read_metrics


def without_times(rows):
    """Rows of a history without what a clock decides."""
    timed = ("seconds", "images_per_second")
    return [{name: row[name] for name in row if name not in timed} for row in rows]


def metrics_without_times(directory):
    """The same of a run's directory."""
    return without_times(read_metrics(directory))


def require_same(one, other):
    """Require equal weights, statistics and rows of two results."""
    for field in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(one, field), getattr(other, field))
    assert without_times(one.history) == without_times(other.history)
