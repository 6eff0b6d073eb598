"""Targets: whitened features."""

import numpy as np
import pytest

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.student import teacher
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


def all_at_once(maps, rows, dim):
    """The same without blocks."""
    joined = np.concatenate([np.asarray(x, np.float32) for x in maps.values()], axis=1)
    mean, std = joined[rows].mean(axis=0), joined[rows].std(axis=0)
    joined = (joined - mean) / np.where(std > 1e-6, std, 1.0)
    fitted = joined[rows]
    variances, axes = np.linalg.eigh(fitted.T.astype(np.float64) @ fitted / len(fitted))
    variances, axes = variances[::-1][:dim], axes[:, ::-1][:, :dim]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(dim)])
    return np.clip(joined @ (axes / np.sqrt(variances)).astype(np.float32), -CLIP, CLIP)


def test_blocks_change_nothing(monkeypatch):
    maps = features() | {"constant": np.ones((400, 2))}
    rows = np.arange(0, 400, 2)
    monkeypatch.setattr(teacher, "_ROWS", 7)
    monkeypatch.setattr(teacher, "_COLUMNS", 3)
    found, _ = whitened(maps, rows, 5)
    np.testing.assert_allclose(found, all_at_once(maps, rows, 5), rtol=1e-6, atol=1e-6)


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
