"""Folders of images in every layout that is read, and what is refused."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import unicodedata

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.data.sources import load_dataset
from semanticfl_jax.data.sources.image_folder import load_image_folder

CLASSES = ("Tabby_cat", "dog", "sea-lion")


def put(path, value, size=(6, 6)):
    """A PNG whose every pixel tells which it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value, 0)).save(path)


def values(images):
    return images[:, 0, 0, 0].tolist()


def load(path, **options):
    return load_dataset("image_folder", str(path), **options)


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def split(tmp_path):
    """train and val: 4 and 2 images a class."""
    root = tmp_path / "pets"
    for label, name in enumerate(CLASSES):
        for i in range(4):
            put(root / "train" / name / f"{i}.png", 10 * label + i)
        for i in range(2):
            put(root / "val" / name / "nested" / f"{i}.PNG", 10 * label + 5 + i)
        (root / "train" / name / ".hidden.png").write_bytes(b"not for us")
        (root / "train" / name / "notes.txt").write_text("no image")
    return root


def test_splits_and_classes_are_folders(split, capsys):
    for _ in range(2):
        dataset = load(split)
        assert dataset.class_names == ("Tabby cat", "dog", "sea lion")
        assert values(dataset.train_images) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
        assert dataset.train_labels.tolist() == np.repeat([0, 1, 2], 4).tolist()
        assert values(dataset.test_images) == [5, 6, 15, 16, 25, 26]
        assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert not dataset.columns
    assert capsys.readouterr().err.count("Writing a cache") == 1


def test_normalisation_is_of_the_training_images(split):
    dataset = load(split)
    pixels = np.asarray(dataset.train_images, np.float64) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std[:2], pixels.std((0, 1, 2))[:2], rtol=1e-12)
    assert dataset.std[2] == 1 / 255  # no contrast at all: not 0


def test_test_goes_before_val(split, capsys):
    shutil.copytree(split / "val" / "dog", split / "test" / "dog")
    with pytest.raises(ValueError, match="test has no images for Tabby_cat, sea-lion"):
        load(split)
    assert "val is not used" in capsys.readouterr().err


def test_without_splits_a_fifth_of_every_class_is_held_out(tmp_path):
    root = tmp_path / "flat"
    sizes = {"a": 20, "b": 10, "c": 2}
    for label, (name, size) in enumerate(sizes.items()):
        for i in range(size):
            put(root / name / f"{i:02}.png", 50 * label + i)
    dataset = load(root)
    assert np.bincount(dataset.train_labels).tolist() == [16, 8, 1]
    assert np.bincount(dataset.test_labels).tolist() == [4, 2, 1]
    together = values(dataset.train_images) + values(dataset.test_images)
    assert sorted(together) == sorted(
        50 * k + i for k, n in enumerate(sizes.values()) for i in range(n)
    )
    assert [v // 50 for v in values(dataset.test_images)] == dataset.test_labels.tolist()
    shutil.rmtree(root / "c")
    put(root / "c" / "0.png", 100)
    with pytest.raises(ValueError, match="no train image of c"):
        load(root)


def write_metadata(folder, rows, header="file_name,hospital,age"):
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n")


def test_columns_come_from_metadata(split):
    names = [f"{name}/{i}.png" for name in CLASSES for i in range(4)]
    rows = [f'{name},"site, {k % 3}",{20 + k}' for k, name in enumerate(names)]
    write_metadata(split / "train", rows[::-1])
    columns = load(split).columns
    assert columns["hospital"].tolist() == [f"site, {k % 3}" for k in range(12)]
    assert columns["age"].tolist() == [str(20 + k) for k in range(12)]

    # One file has no row, and one row no file.
    write_metadata(split / "train", [*rows[1:], "dog/9.png,x,1"])
    message = r"2 of 19 images: train/dog/9.png \(missing\), .*Tabby_cat/0.png \(no row in metadata"
    with pytest.raises(ValueError, match=message):
        load(split)
    dataset = load(split, unreadable="skip")
    assert values(dataset.train_images) == [1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert dataset.columns["age"].tolist() == [str(21 + k) for k in range(11)]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "file_name,age", "a row an image"),
        (["dog/0.png,1"], "name,age", "column file_name"),
        (["dog/0.png,1,2"], "file_name,age", "row 2 has another number of fields"),
        (["dog/0.png,1", "./dog/0.png,2"], "file_name,age", "dog/0.png has two rows"),
    ],
)
def test_metadata_that_is_no_such_table(split, rows, header, message, capsys):
    write_metadata(split / "train", rows, header)
    with pytest.raises(ValueError, match=rf"metadata\.csv.*{message}"):
        load_image_folder(split, column="age")
    # Nobody asks for a column: said, and no reason to refuse the images.
    for _ in range(2):
        assert not load(split).columns
        assert re.search(f"{message}.*; its columns are left out", capsys.readouterr().err)


def test_images_of_different_sizes_need_image_size(split):
    put(split / "train" / "dog" / "0.png", 10, size=(12, 6))
    with pytest.raises(ValueError, match=r"0\.png 6x6, .*dog/0\.png 12x6; .*image_size"):
        load(split)
    dataset = load(split, image_size=4)
    assert dataset.train_images.shape == (12, 4, 4, 3)
    assert values(dataset.train_images)[4] == 10
    # Not only within a split.
    put(split / "train" / "dog" / "0.png", 10)
    for path in (split / "val").rglob("*.PNG"):
        put(path, 1, size=(6, 7))
    with pytest.raises(ValueError, match=r"train/.* 6x6, val/.* 6x7; .*image_size"):
        load(split)
    # Another size, another cache.
    assert load(split, image_size=5).test_images.shape == (6, 5, 5, 3)


def test_damaged_images_are_refused_or_left_out(split):
    (split / "train" / "dog" / "1.png").write_bytes(b"")
    put(split / "train" / "stray.png", 1)
    with pytest.raises(ValueError, match=r"2 of 19 .*stray.png \(in no class's.*1.png \(no image"):
        load(split)
    dataset = load(split, unreadable="skip")
    assert values(dataset.train_images) == [0, 1, 2, 3, 10, 12, 13, 20, 21, 22, 23]


def test_what_is_no_folder_of_classes(tmp_path, split):
    with pytest.raises(ValueError, match="data_dir must be a folder"):
        load_dataset("image_folder", None)
    with pytest.raises(FileNotFoundError, match="no directory"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="at least two"):
        load(tmp_path / "empty")
    shutil.rmtree(split / "val")
    with pytest.raises(ValueError, match="neither test nor val"):
        load(split)
    (split / "val" / "horse").mkdir(parents=True)
    with pytest.raises(ValueError, match="train has no images for horse"):
        load(split)


def test_names_that_read_the_same_are_refused(tmp_path):
    for name in ("sea lion", "sea-lion"):
        put(tmp_path / "x" / name / "0.png", 1)
        put(tmp_path / "x" / name / "1.png", 1)
    with pytest.raises(ValueError, match="differ by more"):
        load(tmp_path / "x")


def test_a_killed_start_leaves_nothing_that_the_next_takes_for_whole(split):
    killed = """
        import os, sys
        from semanticfl_jax.data import sources
        from semanticfl_jax.data.sources import image_files
        append, done = image_files.RowWriter.append, []
        def kill(writer, row):
            if len(done) == 9:
                os.kill(os.getpid(), 9)
            done.append(append(writer, row))
        image_files.RowWriter.append = kill
        sources.load_dataset("image_folder", sys.argv[1])
    """
    command = [sys.executable, "-c", textwrap.dedent(killed), str(split)]
    assert subprocess.run(command, capture_output=True, env=os.environ).returncode == -9
    (left,) = split.glob(".*decoded*")
    assert left.suffix == ".partial"
    assert len(load(split).train_images) == 12
    (cache,) = split.glob(".*decoded*")
    assert cache.suffix != ".partial"


def test_formats_that_are_not_read_are_counted_at_every_start(split, capsys):
    for i in range(7):
        (split / "train" / "dog" / f"{i}.HEIC").write_bytes(b"")
    for _ in range(2):
        load(split)
        assert "not read are 7 .heic, 3 .txt (pip install pillow-heif)" in capsys.readouterr().err
    shutil.rmtree(split / "train" / "dog")
    (split / "train" / "dog").mkdir()
    (split / "train" / "dog" / "0.HEIC").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"no images for dog; .*not read are 2 \.txt, 1 \.heic \(pip"
    ):
        load(split)


def test_a_whole_set_in_another_format_and_with_other_names_of_splits(tmp_path, capsys):
    for folder, count in (("Training", 3), ("Testing", 1)):
        for label, name in enumerate(("a", "b")):
            for i in range(count):
                path = tmp_path / "x" / folder / name / f"{i}.ppm"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (10 * label + i, 0, 0)).save(path)
    dataset = load(tmp_path / "x")
    assert dataset.class_names == ("a", "b")
    assert values(dataset.train_images) == [0, 1, 2, 10, 11, 12]
    assert values(dataset.test_images) == [0, 10]
    assert "not read" not in capsys.readouterr().err


def test_links_are_followed_counted_or_left_out(split):
    os.symlink("gone", split / "train" / "dog" / "9.png")
    os.symlink("..", split / "train" / "dog" / "up")
    os.symlink("nowhere", split / "readme.txt")
    os.symlink("1.png", split / "train" / "dog" / "8.png")
    message = (
        r"2 of 21 images: train/dog/9\.png \(a link to what is not there\), train/dog/up \(a link "
        r"to a folder that it lies in\)"
    )
    with pytest.raises(ValueError, match=message):
        load(split)
    dataset = load(split, unreadable="skip")
    assert values(dataset.train_images) == [0, 1, 2, 3, 10, 11, 12, 13, 11, 20, 21, 22, 23]


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar", "bztar"])
def test_archives_are_read_like_folders(split, tmp_path, kind):
    expected = load(split)
    for cache in split.glob(".*"):
        shutil.rmtree(cache)
    path = shutil.make_archive(str(tmp_path / "packed"), kind, split.parent, split.name)
    dataset = load(path)
    assert dataset.class_names == expected.class_names
    np.testing.assert_array_equal(dataset.train_images, expected.train_images)
    np.testing.assert_array_equal(dataset.test_labels, expected.test_labels)


def test_what_was_found_in_place_of_classes_is_said(tmp_path):
    for i in range(3):
        put(tmp_path / "x" / f"{i}.png", 1)
    with pytest.raises(ValueError, match=r"at least two; found are 3 \.png"):
        load(tmp_path / "x")
    for name in ("cat", "dog"):
        put(tmp_path / "y" / "pets" / name / "0.png", 1)
    with pytest.raises(ValueError, match=r"found are 1 folder \(pets\); 2 \.png"):
        load(tmp_path / "y")


def test_a_class_is_one_however_its_accents_are_written(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for i, folder in enumerate((f"train/{composed}", "train/dog", f"test/{apart}", "test/dog")):
        put(tmp_path / "x" / folder / "0.png", i)
    dataset = load(tmp_path / "x")
    assert dataset.class_names == (composed, "dog")
    assert (values(dataset.train_images), values(dataset.test_images)) == ([0, 1], [2, 3])
    put(tmp_path / "x" / "train" / apart / "0.png", 9)
    with pytest.raises(ValueError, match=r"train has two folders café, .*into one"):
        load(tmp_path / "x")


def test_classes_of_splits_that_differ_are_named_with_what_to_do(tmp_path):
    for folder in ("train/Cat", "train/dog", "test/cat", "test/dog"):
        put(tmp_path / "x" / folder / "0.png", 1)
    with pytest.raises(ValueError, match=r"train has no images for cat, but has Cat for cat: call"):
        load(tmp_path / "x")
    (tmp_path / "x" / "test" / "cat").rename(tmp_path / "x" / "test" / "bird")
    with pytest.raises(ValueError, match=r"train has no images for bird; every class must have"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("-", "_"), ("-", "_")),
        (("-rf", "a\nb", " c "), ("c", "rf", "a b")),
        (("🐱", "1"), ("1", "🐱")),
    ],
)
def test_every_class_has_a_name(tmp_path, folders, names):
    for folder in folders:
        for i in range(2):
            put(tmp_path / "x" / folder / f"{i}.png", i)
    assert load(tmp_path / "x").class_names == names
