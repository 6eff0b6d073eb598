"""The probe: classifiers where the answer is known, features that are kept, and the whole of it."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from semanticfl_jax.config import ConfigError, ExperimentConfig, GuidanceConfig
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.diffusion.random_weights import with_random_weights
from semanticfl_jax.diffusion.stable_diffusion import load
from semanticfl_jax.probing import features
from semanticfl_jax.probing import probe as module
from semanticfl_jax.probing.probe import ProbeConfig, draw, probe
from semanticfl_jax.probing.report import probe_report, summarize_probe

RNG = np.random.default_rng(0)
SD1 = Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"


def made_up(train=90, test=60, classes=3):
    """Images whose mean colour tells their class."""
    labels = np.arange(train + test, dtype=np.int32) % classes
    colours = 60 + 60 * np.eye(classes)[labels][:, None, None, :]
    images = (colours + RNG.normal(size=(train + test, 8, 8, 3)) * 5).clip(0, 255)
    return ImageDataset(
        "made up",
        images[:train].astype(np.uint8),
        labels[:train],
        images[train:].astype(np.uint8),
        labels[train:],
        tuple("abc"),
        (0.5,) * 3,
        (0.2,) * 3,
    )


def test_draws_are_of_the_seed_and_no_more_than_there_is():
    dataset, settings = made_up(), ProbeConfig(train_images=60, test_images=500)
    images, split = draw(dataset, settings, 1)
    assert len(images) == 60 + 60
    assert (len(split.train_labels), len(split.test_labels)) == (60, 60)
    again, _ = draw(dataset, settings, 1)
    np.testing.assert_array_equal(images, again)
    other, _ = draw(dataset, settings, 2)
    assert (other[:60] != images[:60]).any()
    rows = np.sort(images[60:].reshape(60, -1), axis=0)
    np.testing.assert_array_equal(rows, np.sort(dataset.test_images.reshape(60, -1), axis=0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_images": 10}, "train_images must be at least 50, got 10"),
        ({"test_images": -1}, "test_images must be at least 50"),
        ({"seeds": ()}, "seeds must be distinct"),
        ({"seeds": (1, 1)}, "seeds must be distinct"),
        ({"seeds": (-1,)}, "seeds must be distinct"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(ConfigError, match=message):
        ProbeConfig(**values)


def test_too_few_images_of_a_class_are_refused_before_any_work(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise AssertionError(arguments)

    monkeypatch.setattr(module, "cached_features", refuse)
    dataset, settings = made_up(), ProbeConfig(train_images=60)
    once = np.array([0, 1] * 44 + [1, 2])
    rare = dataclasses.replace(dataset, train_labels=once.astype(np.int32))
    with pytest.raises(ConfigError, match=r"train_images must be larger: every class needs 2"):
        probe(rare, CONFIG, dataclasses.replace(settings, train_images=90), tmp_path)
    many = dataclasses.replace(dataset, train_labels=np.arange(90, dtype=np.int32) % 45)
    with pytest.raises(ConfigError, match=r"45 classes .* to 221 images at least.* 90"):
        probe(many, CONFIG, dataclasses.replace(settings, train_images=90), tmp_path)


DATASET = made_up()
CONFIG = ExperimentConfig(
    guidance=GuidanceConfig(enabled=True, checkpoint=str(SD1), maps=("vae", "down_0"))
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(config)` probes the goldens in one directory; two maps, so that little is compiled."""
    directory = tmp_path_factory.mktemp("probe")

    def call(config=CONFIG):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "available_maps", lambda sd: ("vae", "down_0"))
            settings = ProbeConfig(60, 60, seeds=(0, 1))
            return probe(DATASET, config, settings, directory, lambda line: None)

    call.directory = directory
    return call


@pytest.fixture(scope="module")
def result(run):
    return run()


def test_every_feature_stands_beside_its_controls(result):
    figures = result["figures"]
    own = ["raw pixels", "vae, not pooled", "vae", "down_0"]
    amda = ["AMDA, adaptive", "AMDA, uniform", "AMDA, whitened"]
    assert list(figures["trained"]) == own + amda
    assert list(figures["random U-Net"]) == ["down_0", *amda]
    assert list(figures["all random"]) == own[1:] + amda
    assert all(len(row["linear"]) == 2 for rows in figures.values() for row in rows.values())
    assert figures["trained"]["raw pixels"]["linear"] == [1, 1]
    for weights in result["amda"]["adaptive_weights"].values():
        assert [sum(each.values()) for each in weights] == pytest.approx([1, 1])


def test_the_report_has_a_row_a_feature_and_json_has_all(result):
    text = probe_report(result)
    assert text.count("\n| ") == 1 + len(result["figures"]["trained"])
    assert "empty prompt" in text and "seeds 0, 1" in text
    summary = json.loads(json.dumps(summarize_probe(result)))
    pixels = summary["summary"]["trained"]["raw pixels"]["linear"]
    assert pixels == {"mean": 1, "std": 0, "standard_error_of_one_seed": 0}
    assert summary["checkpoint_sha256"] == result["checkpoint_sha256"]


def test_features_that_are_there_are_not_extracted_again(run, result, monkeypatch):
    monkeypatch.setattr(features, "extract_features", None)
    again = run()
    assert again["figures"] == result["figures"]
    other = GuidanceConfig(enabled=True, checkpoint=str(SD1), maps=("vae", "down_0"), timestep=50)
    with pytest.raises(TypeError):
        run(dataclasses.replace(CONFIG, guidance=other))


def test_features_that_are_lost_are_made_again_alike(run, result):
    kept = sorted(run.directory.glob("features/*"))
    assert len(kept) == 6 and {path.suffix for path in kept} == {".npz"}
    for path in kept:
        path.unlink()
    assert run()["figures"] == result["figures"]


def test_unknown_maps_are_named(run):
    other = GuidanceConfig(enabled=True, checkpoint=str(SD1), maps=("up_9",))
    with pytest.raises(ConfigError, match="maps must be among vae, down_0, got"):
        run(dataclasses.replace(CONFIG, guidance=other))


def test_the_network_is_not_told_the_class(monkeypatch, tmp_path):
    sd, seen = load(SD1), []

    def extract(model, images, text, index, **options):
        seen.append((np.asarray(text), index, options))
        return {"vae": np.zeros((len(images), 4), np.float32)}

    monkeypatch.setattr(features, "extract_features", extract)
    images = DATASET.train_images
    found = features.cached_features(
        sd,
        "trained",
        images,
        tmp_path,
        checkpoint_sha256="hash",
        config=CONFIG.guidance,
        maps=("vae",),
        seed=7,
        say=lambda line: None,
    )
    ((text, index, options),) = seen
    np.testing.assert_array_equal(text, sd.text([""])[0])
    assert index.shape == (90,) and not index.any()
    assert (options["timestep"], options["seed"]) == (150, 7)
    pixels = jax.image.resize(np.float32(images), (90, *[sd.image_size] * 2, 3), "bilinear")
    latents = sd.encode(pixels / 127.5 - 1).reshape(90, -1)
    np.testing.assert_allclose(found[features.LATENT], latents, rtol=1e-3, atol=1e-4)


def test_random_latents_have_the_size_that_noise_is_made_for():
    sd, images = with_random_weights(load(SD1), ("vae",), 0), DATASET.train_images
    scaled = features._with_unit_latents(sd, images, sd.image_size)
    found = features.latents(scaled, images, sd.image_size)
    assert found.std() == pytest.approx(1, rel=1e-3)
