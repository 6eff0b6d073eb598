"""Building anchors: when it is done, what a file must agree with, and what each source gives."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from semanticfl_jax.config import ConfigError, GuidanceConfig
from semanticfl_jax.diffusion import batches
from semanticfl_jax.diffusion.stable_diffusion import load
from semanticfl_jax.semantics import building as module
from semanticfl_jax.semantics.aggregation import unit_rows
from semanticfl_jax.semantics.anchor_images import AnchorImages
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.building import obtain_anchors
from tests.semantics.test_anchors import made_up

CHECKPOINT = Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"
CLASSES = ("cat", "dog", "tree")
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(9, dtype=np.int32) % 3
PUBLIC = AnchorImages("public", IMAGES, LABELS)


@pytest.fixture
def obtain(tmp_path, monkeypatch):
    """`obtain_anchors` with a builder that needs no diffusion model."""
    builds = []

    def build(config, checkpoint, images, class_names, *, provenance, **_):
        builds.append(config)
        return made_up(provenance)

    def resolve(name, **options):
        if name == "elsewhere":
            raise FileNotFoundError(name)
        return Path(name)

    monkeypatch.setattr(module, "build_anchors", build)
    monkeypatch.setattr(module, "resolve_checkpoint", resolve)
    monkeypatch.setattr(module, "fingerprint", lambda path: f"sha of {path}")
    monkeypatch.setattr(module, "check_settings", lambda *settings: None)

    def call(config=None, images=PUBLIC, dim=8, seed=0):
        return obtain_anchors(
            config or GuidanceConfig(),
            images,
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
        ({"config": GuidanceConfig(resolution=64)}, "resolution: 0 != 64"),
        ({"config": GuidanceConfig(dtype="bfloat16")}, "dtype: 'float32' != 'bfloat16'"),
        ({"config": GuidanceConfig(anchor_source="generated"), "images": None}, "anchor_source"),
        ({"images": AnchorImages("public", 255 - IMAGES, LABELS)}, "anchor_images_sha256"),
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


def test_a_given_file_needs_neither_its_checkpoint_nor_its_directory(obtain, tmp_path):
    made = GuidanceConfig(checkpoint="here", anchor_source="directory", anchor_dir="photos")
    obtain(made, AnchorImages("directory", IMAGES, LABELS))
    given = GuidanceConfig(
        checkpoint="here", anchor_source="directory", anchors_file=str(obtain.path)
    )
    assert obtain(given, None).provenance["checkpoint_sha256"] == "sha of here"
    saved = Anchors.load(obtain.path)
    moved = dataclasses.replace(saved, provenance={**saved.provenance, "checkpoint": "elsewhere"})
    moved.save(tmp_path / "moved.npz")
    elsewhere = dataclasses.replace(
        given, checkpoint="elsewhere", anchors_file=str(tmp_path / "moved.npz")
    )
    obtain(elsewhere, None)
    with pytest.raises(ValueError, match="timestep"):
        obtain(dataclasses.replace(elsewhere, timestep=7), None)
    assert len(obtain.builds) == 1


def test_a_given_file_does_wherever_its_checkpoint_lies(obtain, monkeypatch):
    """The hash of the checkpoint's files decides, not the place where they lie."""
    monkeypatch.setattr(module, "fingerprint", lambda path: f"sha of {path.name}")
    obtain(GuidanceConfig(checkpoint="a/sd15"))
    given = GuidanceConfig(checkpoint="b/c/sd15", anchors_file=str(obtain.path))
    assert obtain(given).provenance["checkpoint"] == "a/sd15"
    with pytest.raises(ValueError, match="checkpoint: 'a/sd15' != 'b/other'; checkpoint_sha256"):
        obtain(dataclasses.replace(given, checkpoint="b/other"))
    # Where it is not at hand its name is all that can be compared.
    with pytest.raises(ValueError, match="checkpoint: 'a/sd15' != 'elsewhere'"):
        obtain(dataclasses.replace(given, checkpoint="elsewhere"))
    # What a run built into its own directory is as before.
    assert obtain(GuidanceConfig(checkpoint="d/sd15")).provenance["checkpoint"] == "a/sd15"
    assert len(obtain.builds) == 1


def test_anchors_of_either_precision_do_unless_one_is_asked_for(obtain):
    obtain(GuidanceConfig(dtype="bfloat16"))
    assert obtain().provenance["dtype"] == "bfloat16"
    with pytest.raises(ValueError, match="dtype: 'bfloat16' != 'float32'"):
        obtain(GuidanceConfig(dtype="float32"))


def test_budgets_that_do_not_sum_are_refused_before_anything_is_built(obtain):
    with pytest.raises(ConfigError, match=r"guidance\.budgets must sum to .* 8 .*, got 4, 5"):
        obtain(GuidanceConfig(maps=("vae", "mid"), budgets=(4, 5)))
    assert not obtain.builds
    obtain(GuidanceConfig(maps=("vae", "mid"), budgets=(4, 4)))


REAL = GuidanceConfig(checkpoint=str(CHECKPOINT), maps=("vae", "down_0"))


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Anchors of nine of twelve training images, built with a small real checkpoint."""
    path = tmp_path_factory.mktemp("oracle") / "anchors.npz"
    samples = np.array([0, 1, 2, 4, 5, 6, 8, 9, 11])
    images = AnchorImages("oracle", IMAGES, LABELS, samples, total=12)
    config = dataclasses.replace(REAL, anchor_source="oracle")
    anchors = obtain_anchors(
        config, images, CLASSES, dim=6, seed=0, path=path, say=lambda line: None
    )
    return anchors, samples, path


def test_oracle_keeps_a_row_for_every_image_of_a_client(oracle):
    anchors, samples, path = oracle
    assert anchors.samples.shape == (12, 6)
    of_clients = np.isin(np.arange(12), samples)
    lengths = np.linalg.norm(anchors.samples.astype(np.float32), axis=1)
    np.testing.assert_allclose(lengths, of_clients, atol=2e-3)
    rows = anchors.samples[samples].astype(np.float32)
    means = np.stack([rows[label == LABELS].mean(0) for label in range(3)])
    np.testing.assert_allclose(anchors.visual, unit_rows(means), atol=2e-3)
    assert anchors.provenance["anchor_source"] == "oracle"
    # Nothing but the anchors is left beside them.
    assert [entry.name for entry in path.parent.iterdir()] == ["anchors.npz"]


def test_an_interrupted_build_goes_on(oracle, tmp_path, monkeypatch):
    computed = []
    write = batches._write

    def counting(path, arrays):
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(path.name)
        write(path, arrays)

    def build():
        config = dataclasses.replace(REAL, diffusion_batch_size=8)
        path = tmp_path / "anchors.npz"
        return obtain_anchors(
            config, PUBLIC, CLASSES, dim=6, seed=0, path=path, say=lambda line: None
        )

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(batches, "_write", counting)
        build()
    assert not (tmp_path / "anchors.npz").exists()
    with monkeypatch.context() as patch:
        patch.setattr(batches, "_write", lambda path, arrays: computed.append(path.name))
        anchors = build()
    assert computed == ["0-8.npz", "8-9.npz"]
    np.testing.assert_allclose(anchors.visual, oracle[0].visual, atol=1e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["anchors.npz"]


def test_generated_anchors_use_no_image_and_can_be_looked_at(tmp_path):
    config = dataclasses.replace(
        REAL,
        anchor_source="generated",
        generated_per_class=2,
        generation_steps=2,
        maps=("vae",),
        aggregation="single",
    )
    anchors = obtain_anchors(
        config,
        None,
        CLASSES,
        dim=4,
        seed=0,
        path=tmp_path / "anchors.npz",
        say=lambda line: None,
    )
    assert anchors.private
    assert anchors.visual.shape == (3, 4)
    assert anchors.provenance["generated_per_class"] == 2
    assert "anchor_images_sha256" not in anchors.provenance
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"anchors.npz", "anchors-generated.png"}


def test_a_class_has_the_embedding_of_its_own_prompt(tmp_path):
    config = dataclasses.replace(REAL, maps=("vae",), aggregation="single", prompt="one {} more")
    anchors = obtain_anchors(
        config, PUBLIC, CLASSES, dim=4, seed=0, path=tmp_path / "a.npz", say=lambda line: None
    )
    expected = unit_rows(np.asarray(load(CHECKPOINT).text([f"one {n} more" for n in CLASSES])[1]))
    assert np.abs(expected - expected[::-1]).max() > 1e-2
    np.testing.assert_allclose(anchors.text, expected, rtol=1e-4, atol=1e-5)
