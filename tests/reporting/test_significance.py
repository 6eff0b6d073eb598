"""Paired tests against closed forms and SciPy's own tests, which are not what is used."""

import math

import numpy as np
import pytest
import scipy.stats

from semanticfl_jax.reporting.significance import holm, paired


def test_three_seeds_agree_with_the_closed_form_of_two_degrees_of_freedom():
    gains = [0.02, 0.035, 0.01]
    test = paired(gains)
    t = np.mean(gains) / (np.std(gains, ddof=1) / math.sqrt(3))
    assert test.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    # Student's 97.5 % point with two degrees of freedom.
    half = 4.302652729911275 * np.std(gains, ddof=1) / math.sqrt(3)
    assert (test.low, test.high) == pytest.approx((test.mean - half, test.mean + half))
    assert test.p_signs == 2 / 2**3 and test.pairs == 3


@pytest.mark.parametrize("count", [2, 5, 10])
def test_p_values_agree_with_scipys_tests(count):
    rng = np.random.default_rng(count)
    a, b = rng.normal(0.3, 1, count), rng.normal(0, 1, count)
    test = paired(list(a - b))
    assert test.p == pytest.approx(scipy.stats.ttest_rel(a, b).pvalue)
    exact = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert test.p_signs == pytest.approx(exact.pvalue)


def test_degenerate_differences():
    assert paired([]) is None and paired([0.1]) is None
    same = paired([0.0, 0.0, 0.0])
    assert (same.p, same.p_signs, same.mean) == (None, 1, 0)
    constant = paired([0.9 - 0.7, 0.7 - 0.5, 0.5 - 0.3])  # the same, but for how they are rounded
    assert constant.p is None and constant.mean == pytest.approx(0.2)
    assert paired([0.2, 0.2, 0.2 + 1e-6]).p < 0.001
    assert paired([0.1] * 15).p_signs is None


def test_holm_adjusts_by_rank_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
