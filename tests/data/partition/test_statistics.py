import json

import numpy as np
import pytest

from semanticfl_jax.data.partition.statistics import partition_statistics


def test_closed_forms():
    counts = np.array([[4, 4, 0, 0], [2, 2, 2, 2], [0, 0, 8, 0]])
    statistics = partition_statistics(counts)
    np.testing.assert_allclose(statistics.effective_classes, [2, 4, 1])
    np.testing.assert_allclose(statistics.largest_share, [1 / 2, 1 / 4, 1])
    # All labels: 6, 6, 10, 2 of 24.
    np.testing.assert_allclose(statistics.total_variation, [12 / 24, 4 / 24, 14 / 24])
    assert statistics.gini == 0


@pytest.mark.parametrize("seed", range(3))
def test_statistics_match_plain_loops(seed):
    counts = np.random.default_rng(seed).integers(0, 20, (12, 5)) ** 2
    statistics = partition_statistics(counts)
    everything = counts.sum(0) / counts.sum()
    for i, row in enumerate(counts):
        p = row / row.sum()
        entropy = -sum(x * np.log(x) for x in p if x > 0)
        distance = sum(abs(a - b) for a, b in zip(p, everything, strict=True)) / 2
        assert statistics.effective_classes[i] == pytest.approx(np.exp(entropy))
        assert statistics.total_variation[i] == pytest.approx(distance)
        assert statistics.largest_share[i] == pytest.approx(max(p))
    sizes = counts.sum(1)
    pairs = sum(abs(int(a) - int(b)) for a in sizes for b in sizes)
    assert statistics.gini == pytest.approx(pairs / (2 * len(sizes) ** 2 * sizes.mean()))


def test_summary_is_plain_and_leaves_empty_clients_out_of_the_labels():
    summary = partition_statistics(np.array([[6, 0], [0, 0], [1, 1]])).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["clients"], summary["samples"], summary["classes"]) == (3, 8, 2)
    assert summary["sizes"] == {"mean": 8 / 3, "min": 0, "median": 2, "max": 6}
    assert summary["effective_classes"] == pytest.approx(
        {"mean": 1.5, "min": 1, "median": 1.5, "max": 2}
    )


@pytest.mark.parametrize("counts", [np.zeros((2, 3), int), [1, 2], [[1, -1]], np.ones((0, 3))])
def test_counts_that_tell_nothing_are_refused(counts):
    with pytest.raises(ValueError, match="label_counts"):
        partition_statistics(counts)
