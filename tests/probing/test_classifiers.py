"""The probe's classifiers, on features for which the answer is known."""

import numpy as np
import pytest

from semanticfl_jax.probing.classifiers import Split, assess

RNG = np.random.default_rng(0)
SPLIT = Split(np.arange(200) % 4, np.arange(100) % 4, 0)
LABELS = np.concatenate([SPLIT.train_labels, SPLIT.test_labels])


@pytest.mark.parametrize("by_column", [True, False])
def test_separate_classes_are_told_apart_and_noise_is_not(by_column):
    noise = RNG.normal(size=(300, 6))
    corners = 20 * np.eye(4, 6)[LABELS] + noise
    found = assess(corners, SPLIT, by_column=by_column)
    assert (found["linear"], found["knn"]) == (1, 1)
    assert found["separability"] > 1.5
    found = assess(noise, SPLIT, by_column=by_column)
    assert found["linear"] < 0.45 and found["knn"] < 0.45
    assert found["separability"] < 0.1


def test_accuracy_is_that_of_the_best_linear_rule():
    # Two unit normals at distance 2: no rule does better than Phi(1) = 0.841.
    labels = np.arange(6000) % 2
    features = RNG.normal(size=(6000, 3)) + 2 * np.eye(2, 3)[labels] * np.array([[1.0, 0, 0]])
    found = assess(features, Split(labels[:3000], labels[3000:], 0))
    assert abs(found["linear"] - 0.841) < 0.03


def test_units_and_constant_columns_do_not_matter():
    features = np.concatenate([3 * np.eye(4)[LABELS] + RNG.normal(size=(300, 4))] * 2, axis=1)
    changed = np.concatenate([features * np.logspace(-3, 3, 8) + 5, np.ones((300, 2))], axis=1)
    first, second = assess(features, SPLIT), assess(changed, SPLIT)
    assert second["dimensions"] == 8
    for name in ("linear", "knn", "separability"):
        assert second[name] == pytest.approx(first[name], abs=0.02)


def test_nothing_is_chosen_on_test():
    features = RNG.normal(size=(300, 40)) + np.eye(4, 40)[LABELS]
    first = assess(features, SPLIT)
    features[200:] = RNG.normal(size=(100, 40))
    second = assess(features, Split(SPLIT.train_labels, 3 - SPLIT.test_labels, 0))
    for name in ("inverse_strength", "separability", "dimensions"):
        assert first[name] == second[name]
