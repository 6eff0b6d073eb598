"""Anchors: what a file holds, when it is refused, and what the controls are."""

import dataclasses
import json

import numpy as np
import pytest

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.anchors import Anchors, control_anchors

RNG = np.random.default_rng(0)
MAPS = {"vae": {"dimensions": 8, "weight": 1.0, "separability": 0.5}}


def made_up(provenance=None, rows=3, dim=8):
    def unit(shape):
        x = RNG.normal(size=shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    names = tuple(f"class {i}" for i in range(rows))
    return Anchors(unit((rows, dim)), unit((rows, 5)), names, provenance or {}, MAPS, 2)


def test_save_and_load_agree(tmp_path):
    anchors = made_up({"timestep": 150})
    anchors.save(tmp_path / "sub" / "anchors.npz")
    loaded = Anchors.load(tmp_path / "sub" / "anchors.npz")
    np.testing.assert_array_equal(loaded.visual, anchors.visual)
    np.testing.assert_array_equal(loaded.text, anchors.text)
    assert loaded.class_names == anchors.class_names
    assert (loaded.provenance, loaded.maps, loaded.padding) == ({"timestep": 150}, MAPS, 2)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["anchors.npz"]
    assert loaded.private
    assert loaded.samples is None


def test_features_of_single_images_are_kept_and_marked(tmp_path):
    samples = RNG.normal(size=(5, 8)).astype(np.float16)
    anchors = dataclasses.replace(made_up(), samples=samples)
    anchors.save(tmp_path / "anchors.npz")
    loaded = Anchors.load(tmp_path / "anchors.npz")
    np.testing.assert_array_equal(loaded.samples, samples)
    assert not loaded.private
    with np.load(tmp_path / "anchors.npz", allow_pickle=False) as file:
        assert json.loads(file["described"].item())["private"] is False


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "anchors.npz"
    with pytest.raises(FileNotFoundError, match="anchors_file"):
        Anchors.load(path)
    path.write_text("not an archive")
    with pytest.raises(ValueError, match="not an anchors file"):
        Anchors.load(path)
    np.savez(path, visual=np.zeros(3))
    with pytest.raises(ValueError, match="not an anchors file"):
        Anchors.load(path)
    np.savez(path, visual=np.zeros(3), text=np.zeros(3), described=json.dumps({"maps": 1}))
    with pytest.raises(ValueError, match="not an anchors file"):
        Anchors.load(path)


def test_random_anchors_are_orthonormal():
    control = control_anchors(made_up(rows=4), "random_orthogonal", seed=0)
    np.testing.assert_allclose(control.visual @ control.visual.T, np.eye(4), atol=1e-6)
    np.testing.assert_allclose(control.text @ control.text.T, np.eye(4), atol=1e-6)


def test_more_classes_than_dimensions_stay_unit_and_orthogonal_in_blocks():
    control = control_anchors(made_up(rows=7, dim=3), "random_orthogonal", seed=0)
    assert control.visual.shape == (7, 3)
    gram = control.visual @ control.visual.T
    np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-6)
    np.testing.assert_allclose(gram[3:6, 3:6], np.eye(3), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_moves_every_class_and_both_modalities_alike(seed):
    anchors = made_up(rows=10)
    control = control_anchors(anchors, "shuffled", seed)
    source = [int(np.argmax(anchors.visual @ row)) for row in control.visual]
    assert sorted(source) == list(range(10))
    assert all(index != row for row, index in enumerate(source))
    np.testing.assert_array_equal(control.text, anchors.text[source])


def test_semantic_anchors_are_left_alone_and_other_controls_refused():
    anchors = made_up()
    assert control_anchors(anchors, "semantic", 0) is anchors
    with pytest.raises(ValueError, match="semantic, random_orthogonal or shuffled"):
        control_anchors(anchors, "none", 0)


def test_anchors_that_are_not_finite_are_refused_by_the_class():
    anchors = made_up()
    anchors.require_finite()
    text = anchors.text.copy()
    text[2, 1] = np.nan
    with pytest.raises(SemanticFLError, match="semantic anchors of class 2 are not finite"):
        dataclasses.replace(anchors, text=text).require_finite()


@pytest.mark.parametrize(
    "changes",
    [
        {"visual": np.ones((2, 3), int)},
        {"visual": np.full((2, 3), "x")},
        {"text": np.ones((2, 3), complex)},
        {"samples": np.ones((5, 4), np.float16)},
        {"class_names": "ab"},
        {"provenance": None},
    ],
)
def test_arrays_and_descriptions_of_another_kind_are_refused(tmp_path, changes):
    described = {"class_names": ["a", "b"], "provenance": {}, "maps": {}, "padding": 0}
    arrays = {"visual": np.ones((2, 3), np.float32), "text": np.ones((2, 3), np.float32)}
    for name, value in changes.items():
        (described if name in described else arrays)[name] = value
    np.savez(tmp_path / "x.npz", described=json.dumps(described), **arrays)
    with pytest.raises(ValueError, match=r"x\.npz is not an anchors file"):
        Anchors.load(tmp_path / "x.npz")
