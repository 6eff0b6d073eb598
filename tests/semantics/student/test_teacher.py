"""Targets: whitened features."""

import numpy as np
import pytest

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.student.teacher import CLIP, whitened


def features(count=400, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, 6)) @ rng.normal(size=(6, 6)) * [1, 5, 0.1, 9, 1, 1] + 3
    return {"a": mixed[:, :2], "b": mixed[:, 2:]}


def test_targets_are_principal_components_of_deviation_one():
    maps = features()
    rows = np.arange(300)
    targets, explained = whitened(maps, rows, 4)
    joined = np.concatenate([*maps.values()], axis=1)
    standard = (joined - joined[rows].mean(0)) / joined[rows].std(0)
    centred = standard[rows]
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :4] * np.sqrt(len(rows))
    for column in range(4):
        ours, theirs = targets[rows, column], expected[:, column]
        theirs = theirs * np.sign(ours @ theirs)
        np.testing.assert_allclose(ours, np.clip(theirs, -CLIP, CLIP), atol=2e-3)
    np.testing.assert_allclose(explained, (singular[:4] ** 2).sum() / (singular**2).sum())
    # Images that did not decide the axes are mapped alike: a repeated image to the same target.
    twice = {name: np.concatenate([x, x[:1]]) for name, x in maps.items()}
    again, _ = whitened(twice, rows, 4)
    np.testing.assert_allclose(again[-1], targets[0], atol=1e-5)


def test_outliers_are_cut_off():
    maps = features()
    maps["a"][350] = 1e4
    targets, _ = whitened(maps, np.arange(300), 4)
    assert np.abs(targets).max() == CLIP
    assert np.abs(targets[350]).max() == CLIP


def test_more_dimensions_than_the_features_have_are_refused():
    with pytest.raises(SemanticFLError, match=r"guidance\.student\.dim must be at most 6"):
        whitened(features(), np.arange(300), 7)
    with pytest.raises(SemanticFLError, match=r"at most 3 .* of 4 images in a, b"):
        whitened(features(), np.arange(4), 5)
