"""Images in TinyImageNet's layout: which split they are of, when they are read again, damage."""

import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.config import ConfigError
from semanticfl_jax.pretraining import images


@pytest.fixture
def folder(tmp_path):
    """Two training and two validation images, below a folder named as a split."""
    root = tmp_path / "train" / "tiny-imagenet-200"
    for index, name in enumerate(
        ("train/n1/images/n1_0", "train/n2/images/n2_0", "val/images/val_0", "val/images/val_1")
    ):
        path = root / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * index, 0, 0)).save(path)
    (root / "wnids.txt").write_text("n1\nn2\n")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\nval_1.JPEG\tn1\t0\n")
    return root


def read(path, cache, size=4):
    return images.load(path, size, cache, list)


@pytest.mark.parametrize("packed", [False, True])
def test_folders_above_do_not_decide_the_split(folder, tmp_path, packed):
    path = folder
    if packed:
        path = tmp_path / "images.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(folder, "val/train/tiny-imagenet-200")
    train, val = read(path, tmp_path / "cache.npz")
    assert train.labels.tolist() == [0, 1]
    assert val.labels.tolist() == [1, 0]
    np.testing.assert_allclose(val.pixels[:, 0, 0, 0], [120, 180], atol=3)


def test_images_are_read_again_when_they_change_and_not_when_they_move(folder, tmp_path):
    cache = tmp_path / "cache.npz"
    before = read(folder, cache)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    written = cache.stat().st_mtime_ns
    again = read(moved, cache)
    assert cache.stat().st_mtime_ns == written
    np.testing.assert_array_equal(again[0].pixels, before[0].pixels)
    changed = moved / "train" / "n1" / "images" / "n1_0.JPEG"
    Image.new("RGB", (8, 8), (250, 250, 250)).save(changed)
    assert read(moved, cache)[0].pixels[0].min() > 240
    read(moved, cache, size=2)


def test_damaged_files_are_named(folder, tmp_path):
    cache, picture = tmp_path / "cache.npz", folder / "val" / "images" / "val_0.JPEG"
    with tarfile.open(tmp_path / "cut.tar", "w") as tar:
        tar.add(folder, "x")
    content = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: len(content) // 2 + 100])
    with pytest.raises(ConfigError, match=r"images: .*cut\.tar"):
        read(tmp_path / "cut.tar", cache)
    picture.write_bytes(picture.read_bytes()[:-200])
    with pytest.raises(ConfigError, match=r"images: .*: val/images/val_0\.JPEG is damaged"):
        read(folder, cache)
    picture.unlink()
    os.symlink("gone", picture)
    with pytest.raises(ConfigError, match=r"val_0\.JPEG \(a link to what is not there\)"):
        read(folder, cache)
