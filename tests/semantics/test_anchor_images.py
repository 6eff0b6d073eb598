"""Anchor images from a directory: which folders count, and what is refused."""

import os

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.semantics.anchor_images import AnchorImages, directory_images

NAMES = ("ice cream", "cat")


def put(path, size=(6, 4), colour=(200, 10, 10), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folders(tmp_path):
    put(tmp_path / "Ice_Cream" / "b.png")
    put(tmp_path / "ice-cream" / "a.PNG", colour=(0, 0, 255))
    put(tmp_path / "cat" / "grey.jpg", size=(3, 9), colour=77, mode="L")
    put(tmp_path / "dog" / "not-asked-for.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_folders_are_found_by_name_and_images_made_square(folders):
    found = directory_images(folders, NAMES, 4)
    assert found.source == "directory"
    assert found.images.shape == (3, 4, 4, 3)
    assert found.labels.tolist() == [0, 0, 1]
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images[0, 0, 0], [200, 10, 10])
    np.testing.assert_array_equal(found.images[1, 0, 0], [0, 0, 255])
    np.testing.assert_allclose(found.images[2], 77, atol=1)


def test_missing_classes_are_named(folders):
    with pytest.raises(ValueError, match=r"no images for tree.*Folders there: cat, dog, ice cream"):
        directory_images(folders, (*NAMES, "tree"), 4)
    with pytest.raises(FileNotFoundError, match="anchor_dir"):
        directory_images(folders / "none", NAMES, 4)


def test_broken_images_are_counted_and_named_not_skipped(folders):
    (folders / "cat" / "broken.png").write_bytes(b"\x89PNG half")
    with pytest.raises(ValueError, match=r"1 files .* no whole images: cat/broken.png"):
        directory_images(folders, NAMES, 4)


def test_what_is_ignored_read_counted_and_broken(folders, capsys):
    """As in every other folder of images."""
    for name in ("._grey.jpg", "Thumbs.db", ".DS_Store"):
        (folders / "cat" / name).write_bytes(b"x")
    (folders / "__MACOSX" / "cat").mkdir(parents=True)
    (folders / "cat" / "0.heic").write_bytes(b"x")
    put(folders / "cat" / "z.ppm", colour=(1, 2, 3))
    found = directory_images(folders, NAMES, 4)
    np.testing.assert_array_equal(found.images[3, 0, 0], [1, 2, 3])
    assert "not read are 1 .heic, 1 .txt (pip install pillow-heif)" in capsys.readouterr().err
    os.symlink("gone", folders / "cat" / "9.png")
    with pytest.raises(ValueError, match=r"1 files .*cat/9\.png \(a link to what is not there\)"):
        directory_images(folders, NAMES, 4)


def test_the_home_directory(folders, monkeypatch):
    monkeypatch.setenv("HOME", str(folders.parent))
    assert len(directory_images(f"~/{folders.name}", NAMES, 4).images) == 3


def test_the_hash_covers_pixels_labels_and_places():
    images, labels = np.zeros((2, 2, 2, 3), np.uint8), np.array([0, 1], np.int32)
    base = AnchorImages("public", images, labels).sha256
    others = [
        AnchorImages("public", images + 1, labels),
        AnchorImages("public", images, labels[::-1]),
        AnchorImages("oracle", images, labels, np.array([3, 4]), 9),
    ]
    assert len({base, *(other.sha256 for other in others)}) == 4
