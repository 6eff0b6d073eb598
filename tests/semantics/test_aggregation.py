"""AMDA against scikit-learn's PCA and against what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from semanticfl_jax.semantics.aggregation import fit_amda, separability, share_dimensions

LABELS = np.repeat(np.arange(4), 10)


@pytest.fixture(scope="module")
def features():
    """One map that separates the classes and one that is noise."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6)) * 3
    noise = rng.normal(size=(40, 12)).astype(np.float32)
    return {"mid": (centers[LABELS] + rng.normal(size=(40, 6))).astype(np.float32), "up": noise}


def test_single_map_is_standardised_pca(features):
    x = features["mid"]
    amda = fit_amda({"mid": x}, LABELS, 3, "single")
    standard = (x - x.mean(0)) / x.std(0)
    expected = PCA(3).fit_transform(standard)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosines = np.sum(
        amda.transform({"mid": x}) * expected * _signs(amda, x, expected)[None], axis=1
    )
    np.testing.assert_allclose(cosines, 1.0, atol=1e-4)


def _signs(amda, x, expected):
    return np.sign(np.sum(amda.transform({"mid": x}) * expected, axis=0))


def test_adaptive_weights_are_the_softmax_of_separability(features):
    amda = fit_amda(features, LABELS, 8, "adaptive")
    scores = np.array([p.separability for p in amda.projections.values()])
    weights = np.array([p.weight for p in amda.projections.values()])
    np.testing.assert_allclose(weights, np.exp(scores) / np.exp(scores).sum(), rtol=1e-6)
    assert weights[0] > weights[1]


def test_equal_maps_enter_with_their_weights(features):
    amda = fit_amda(features, LABELS, 8, "uniform")
    out = amda.transform(features)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1.0, rtol=1e-5)
    blocks = [np.mean(np.sum(out[:, s] ** 2, axis=1)) for s in (slice(0, 4), slice(4, 8))]
    np.testing.assert_allclose(blocks, 0.5, atol=0.1)


def test_missing_components_are_zero_columns_at_the_end(features):
    amda = fit_amda(features, LABELS, 64)
    assert amda.padding == 64 - 6 - 12
    out = amda.transform(features)
    assert out.shape == (40, 64)
    np.testing.assert_array_equal(out[:, 18:], 0.0)


def test_separability_of_a_hand_made_case():
    # Two classes at -1 and +1 with spread 1 inside: between 4 * 1, within 4 * 1.
    x = np.array([[-2.0], [0.0], [0.0], [2.0]])
    assert separability(x, np.array([0, 0, 1, 1])) == pytest.approx(1.0)
    assert separability(np.ones((4, 1)), np.array([0, 0, 1, 1])) == 0.0


def test_maps_that_separate_perfectly_stay_finite():
    exact = {"a": np.eye(4, dtype=np.float32)[LABELS], "b": np.ones((40, 2), np.float32)}
    amda = fit_amda(exact, LABELS, 6)
    assert np.isfinite(amda.transform(exact)).all()
    assert amda.projections["a"].weight == pytest.approx(1.0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 200))
def test_shares_use_what_there_is_and_are_even(capacities, dim):
    shares = share_dimensions(capacities, dim)
    assert sum(shares) == min(dim, sum(capacities))
    assert all(s <= c for s, c in zip(shares, capacities, strict=True))
    full = [s for s, c in zip(shares, capacities, strict=True) if s < c]
    assert not full or (max(shares) <= max(full) + 1 and max(full) - min(full) <= 1)


def test_impossible_requests_are_refused(features):
    with pytest.raises(ValueError, match="adaptive, uniform, single"):
        fit_amda(features, LABELS, 8, "best")
    with pytest.raises(ValueError, match="2 feature maps"):
        fit_amda(features, LABELS, 8, "single")
    with pytest.raises(ValueError, match="at least 2"):
        fit_amda({"mid": features["mid"][:1]}, LABELS[:1], 8)


def test_budgets_are_dimensions_a_map_and_the_rest_is_padding(features):
    amda = fit_amda(features, LABELS, 16, budgets=(8, 8))
    assert [p.components.shape[1] for p in amda.projections.values()] == [6, 8]
    assert amda.padding == 2
    for budgets in ((8,), (8, 7)):
        with pytest.raises(ValueError, match=r"budgets must be 2 numbers.*sum to dim = 16"):
            fit_amda(features, LABELS, 16, budgets=budgets)


def test_a_map_counts_by_its_weight(features):
    def ratio(amda):
        found = amda.transform(features)
        return np.linalg.norm(found[:, :4], axis=1) / np.linalg.norm(found[:, 4:], axis=1)

    adaptive = fit_amda(features, LABELS, 8, "adaptive")
    mid, up = (projection.weight for projection in adaptive.projections.values())
    uniform = fit_amda(features, LABELS, 8, "uniform")
    np.testing.assert_allclose(ratio(adaptive) / ratio(uniform), mid / up, rtol=1e-4)


def test_maps_count_alike_whatever_share_of_the_dimensions_they_have():
    rng = np.random.default_rng(0)
    noise = {name: rng.normal(size=(40, width)) for name, width in (("a", 6), ("b", 12))}
    noise = {name: x.astype(np.float32) for name, x in noise.items()}
    out = fit_amda(noise, LABELS, 13, "uniform", budgets=(1, 12)).transform(noise)
    assert 0.25 < np.mean(out[:, 0] ** 2) < 0.75
