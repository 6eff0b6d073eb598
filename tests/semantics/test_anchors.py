"""Anchors: what a file holds, when it is refused, and what the controls are."""

import json

import numpy as np
import pytest

from semanticfl_jax.config import GuidanceConfig
from semanticfl_jax.semantics import anchors as module
from semanticfl_jax.semantics.anchors import Anchors, control_anchors, obtain_anchors

CLASSES = ("cat", "dog", "tree")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(9) % 3
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


@pytest.fixture
def obtain(tmp_path, monkeypatch):
    """`obtain_anchors` with a builder that needs no diffusion model."""
    builds = []

    def build(config, images, labels, class_names, *, dim, seed):
        builds.append(config)
        found = module.expected_provenance(config, images, labels, class_names, dim=dim, seed=seed)
        return made_up(found)

    monkeypatch.setattr(module, "build_anchors", build)
    monkeypatch.setattr(module, "resolve_checkpoint", lambda name: name)
    monkeypatch.setattr(module, "fingerprint", lambda path: f"sha of {path}")

    def call(config=None, images=IMAGES, dim=8, seed=0):
        config = config or GuidanceConfig()
        return obtain_anchors(
            config,
            images,
            LABELS,
            CLASSES,
            dim=dim,
            seed=seed,
            path=tmp_path / "anchors.npz",
            say=lambda line: None,
        )

    call.builds, call.path = builds, tmp_path / "anchors.npz"
    return call


def test_anchors_are_built_once(obtain):
    first, second = obtain(), obtain()
    assert len(obtain.builds) == 1
    np.testing.assert_array_equal(first.visual, second.visual)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"config": GuidanceConfig(timestep=100)}, "timestep: 150 != 100"),
        ({"config": GuidanceConfig(prompt="{}")}, "prompt"),
        ({"config": GuidanceConfig(maps=("vae",))}, "maps"),
        ({"config": GuidanceConfig(checkpoint="other")}, "checkpoint_sha256"),
        ({"config": GuidanceConfig(aggregation="uniform")}, "aggregation"),
        ({"images": 255 - IMAGES}, "anchor_images_sha256"),
        ({"dim": 16}, "dim: 8 != 16"),
        ({"seed": 1}, "seed: 0 != 1"),
    ],
)
def test_anchors_of_another_making_are_refused_and_kept(obtain, change, field):
    obtain()
    before = obtain.path.read_bytes()
    with pytest.raises(ValueError) as error:
        obtain(**change)
    assert field in str(error.value)
    assert obtain.path.read_bytes() == before
    assert len(obtain.builds) == 1


def test_settings_of_the_loss_do_not_touch_the_anchors(obtain):
    obtain()
    obtain(GuidanceConfig(lambda_kd=0.5, kd="l2", temperature_con=0.1, anchors="shuffled"))
    assert len(obtain.builds) == 1


def test_a_given_file_must_exist_and_is_never_written(obtain, tmp_path):
    given = tmp_path / "given.npz"
    with pytest.raises(FileNotFoundError):
        obtain(GuidanceConfig(anchors_file=str(given)))
    obtain()
    obtain.path.rename(given)
    obtain(GuidanceConfig(anchors_file=str(given)))
    assert len(obtain.builds) == 1
    assert not obtain.path.exists()


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
