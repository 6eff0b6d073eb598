"""Images that a student is distilled on."""

import os

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.config import StudentConfig
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.student import images as module
from semanticfl_jax.semantics.student.images import StudentImages, read_images, split_held_out

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
DATASET = ImageDataset.from_arrays(PIXELS, np.arange(10) % 2, PIXELS[:2], np.arange(2))
NONE = np.zeros(0, np.int64)


def test_smaller_images_are_averages_of_areas():
    images = StudentImages("public", PIXELS, None)
    expected = PIXELS.reshape(10, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    # Pillow rounds after each of the two directions.
    np.testing.assert_allclose(images.resized(4, 4), expected, atol=1.0)
    assert images.resized(8, 8) is PIXELS
    assert images.resized(16, 12).shape == (10, 16, 12, 3)


def test_a_limit_draws_as_the_seed_says_and_keeps_labels_with_images():
    images = StudentImages("public", PIXELS, np.arange(10, dtype=np.int32))
    few = images.limited(4, seed=1)
    np.testing.assert_array_equal(few.images, PIXELS[few.labels])
    assert len(set(few.labels.tolist())) == 4
    assert few.sha256 == images.limited(4, seed=1).sha256 != images.limited(4, seed=2).sha256
    assert images.limited(0, 0) is images.limited(10, 0) is images


def test_held_out_images_are_not_trained_on():
    rows, held = split_held_out(50, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([rows, held])), np.arange(50))
    assert len(held) == 5
    assert len(split_held_out(100_000, 0)[1]) == 2000


def test_the_public_split_is_all_that_is_read_of_the_clients_data_set():
    public = np.array([1, 4, 7])
    found = read_images(StudentConfig(images="public"), DATASET, public, side=8)
    np.testing.assert_array_equal(found.images, PIXELS[public])
    np.testing.assert_array_equal(found.labels, public % 2)
    assert read_images(StudentConfig(images="generated"), DATASET, public, 8) is None


def test_a_directory_is_read_to_its_depths(tmp_path):
    for index, name in enumerate(("b/x.png", "a/deep/y.png", "a/deep/z.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[index]).save(tmp_path / name)
    config = StudentConfig(images="directory", data_dir=str(tmp_path))
    found = read_images(config, DATASET, NONE, side=8)
    np.testing.assert_array_equal(found.images, PIXELS[[1, 2, 0]])
    assert found.labels.tolist() == [0, 0, 1]
    (tmp_path / "b" / "w.png").write_bytes(b"no image")
    with pytest.raises(SemanticFLError, match=r"guidance\.student\.data_dir: 1 files"):
        read_images(config, DATASET, NONE, side=8)


def test_of_a_directory_only_what_is_drawn_is_decoded(tmp_path, monkeypatch):
    for index, name in enumerate("abcdefghij"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS[index]).save(tmp_path / name / "x.png")
    decoded = []

    def counting(open_file, names, side, decode=module.decode):
        decoded.extend(names)
        return decode(open_file, names, side)

    monkeypatch.setattr(module, "decode", counting)
    config = StudentConfig(images="directory", data_dir=str(tmp_path), max_images=4, seed=1)
    found = read_images(config, DATASET, NONE, side=8)
    assert len(decoded) == 4
    expected = StudentImages("", PIXELS, np.arange(10, dtype=np.int32)).limited(4, seed=1)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_files_of_a_directory_that_are_not_read_are_told(tmp_path, capsys):
    for index in range(2):
        Image.fromarray(PIXELS[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no image")
    config = StudentConfig(images="directory", data_dir=str(tmp_path))
    assert len(read_images(config, DATASET, NONE, side=8).images) == 2
    assert "not read are 1 .txt" in capsys.readouterr().err
    os.symlink("gone", tmp_path / "9.png")
    with pytest.raises(SemanticFLError, match=r"1 files .*9\.png \(a link to what is not there\)"):
        read_images(config, DATASET, NONE, side=8)


def test_too_few_images_are_refused():
    with pytest.raises(SemanticFLError, match="at least 2"):
        read_images(StudentConfig(images="public"), DATASET, NONE, side=8)
    other = read_images(StudentConfig(images="dataset:digits"), DATASET, NONE, side=8)
    assert len(other.images) == len(other.labels) == 1437


def test_a_data_set_of_other_inputs_is_refused(monkeypatch):
    rows = ImageDataset.from_arrays(
        np.ones((4, 3)), np.arange(4) % 2, np.ones((2, 3)), np.arange(2)
    )
    monkeypatch.setattr(module, "load_dataset", lambda *_: rows)
    with pytest.raises(SemanticFLError, match=r"student\.images=dataset:digits must name"):
        read_images(StudentConfig(images="dataset:digits"), DATASET, NONE, side=8)
