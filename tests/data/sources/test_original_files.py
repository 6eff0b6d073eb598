"""Data sets of original files, of small files in the same format."""

import gzip
import json
import struct

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data import sources
from semanticfl_jax.data.sources import cifar10_c, domain_folder
from semanticfl_jax.data.sources.idx import emnist_classes
from semanticfl_jax.errors import ConfigError, MissingFileError, SemanticFLError

RNG = np.random.default_rng(0)


def load(name, directory, **values):
    values = {"dataset": name, "data_dir": str(directory), **values}
    return sources.from_config(from_dict(ExperimentConfig, values))


def write_idx(path, array):
    """By the format's description, not by the reader's code."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def grey():
    return {n: RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (12, 5)}


def test_fashion_mnist_is_its_four_files_packed_or_not(tmp_path, grey):
    labels = {12: np.arange(12) % 10, 5: np.arange(5)}
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", grey[12])
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", labels[12])
    write_idx(tmp_path / "t10k-images.idx3-ubyte", grey[5])
    write_idx(tmp_path / "t10k-labels.idx1-ubyte", labels[5])
    data = load("fashion_mnist", tmp_path)
    assert data.name == "fashion_mnist" and data.class_names[9] == "ankle boot"
    assert data.train_images.shape == (12, 32, 32, 3) and data.test_images.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(data.train_images[:, 2:30, 2:30, channel], grey[12])
    assert data.train_images.sum() == 3 * grey[12].sum(dtype=np.int64)
    np.testing.assert_array_equal(data.test_labels, labels[5])

    cut = tmp_path / "t10k-images.idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(SemanticFLError, match=r"idx3-ubyte is cut off"):
        load("fashion_mnist", tmp_path)
    packed = tmp_path / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(SemanticFLError, match="damaged or cut off"):
        load("fashion_mnist", tmp_path)
    packed.write_bytes(b"<html>not found</html>")
    with pytest.raises(SemanticFLError, match="no IDX file of bytes"):
        load("fashion_mnist", tmp_path)
    packed.unlink()
    with pytest.raises(MissingFileError, match=r"has no train-images-idx3-ubyte.gz, nor"):
        load("fashion_mnist", tmp_path)


def test_emnist_is_turned_upright_and_letters_begin_at_one(tmp_path, grey):
    for split, count in (("train", 12), ("test", 5)):
        write_idx(tmp_path / f"emnist-letters-{split}-images-idx3-ubyte.gz", grey[count])
        labels = np.arange(count) % 26 + 1
        write_idx(tmp_path / f"emnist-letters-{split}-labels-idx1-ubyte.gz", labels)
    data = load("emnist", tmp_path, dataset_settings={"split": "letters"})
    np.testing.assert_array_equal(data.test_images[:, 2:30, 2:30, 0], grey[5].swapaxes(1, 2))
    assert data.test_labels.tolist() == [0, 1, 2, 3, 4] and data.class_names[3] == "letter D"
    with pytest.raises(MissingFileError, match="emnist-balanced-train-images"):
        load("emnist", tmp_path)
    counts = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10}
    for split, count in counts.items():
        assert len(set(emnist_classes(split))) == count
    assert emnist_classes("balanced")[36] == "small letter a"
    path = tmp_path / "emnist-letters-test-labels-idx1-ubyte.gz"
    write_idx(path, np.array([0, 1, 2, 3, 27]))
    with pytest.raises(SemanticFLError, match="labels from 1 to 26, has 0 to 27"):
        load("emnist", tmp_path, dataset_settings={"split": "letters"})


def test_svhn_is_two_matlab_files(tmp_path):
    images = RNG.integers(0, 256, (32, 32, 3, 7), dtype=np.uint8)
    labels = np.array([[10], [1], [2], [9], [10], [3], [4]], np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": labels})
    data = load("svhn", tmp_path)
    np.testing.assert_array_equal(data.train_images[4], images[..., 4])
    assert data.train_labels.tolist() == [0, 1, 2, 9, 0, 3, 4]
    assert data.class_names[0] == "digit 0"
    whole = (tmp_path / "test_32x32.mat").read_bytes()
    (tmp_path / "test_32x32.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SemanticFLError, match=r"test_32x32.mat is no whole MATLAB file"):
        load("svhn", tmp_path)


def test_femnist_has_a_column_of_writers(tmp_path):
    pixels = {"f1": RNG.random((3, 784)), "f2": RNG.random((2, 784))}
    labels = {"f1": [0, 10, 61], "f2": [36, 5]}
    users = {u: {"x": pixels[u].tolist(), "y": labels[u]} for u in pixels}
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        text = json.dumps({"users": [*users], "num_samples": [3, 2], "user_data": users})
        (tmp_path / split / "all_data_0_niid.json").write_text(text)
    data = load("femnist", tmp_path)
    assert data.columns["writer"].tolist() == ["f1"] * 3 + ["f2"] * 2
    assert [data.class_names[c] for c in data.train_labels] == [
        "digit 0",
        "capital letter A",
        "small letter z",
        "small letter a",
        "digit 5",
    ]
    drawn = np.rint(255 * pixels["f2"][1].reshape(28, 28))
    np.testing.assert_array_equal(data.train_images[4, 2:30, 2:30, 0], drawn)
    assert (data.train_images[:, 0] == 255).all(), "the margin is paper"
    (tmp_path / "test" / "all_data_0_niid.json").write_text('{"users": []}')
    with pytest.raises(SemanticFLError, match="no file of LEAF's"):
        load("femnist", tmp_path)


def test_cifar10_c_replaces_the_test_images(tmp_path, monkeypatch):
    corrupted = {k: RNG.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8) for k in ("fog", "snow")}
    labels = np.tile([3, 1, 4, 1], 5)
    np.save(tmp_path / "labels.npy", labels)
    for kind, images in corrupted.items():
        np.save(tmp_path / f"{kind}.npy", images)
    clean = sources.ImageDataset.from_arrays(
        corrupted["fog"], labels, corrupted["fog"], labels, name="cifar10"
    )
    monkeypatch.setattr(cifar10_c, "cifar10", lambda settings, context: clean)
    settings = {"directory": str(tmp_path), "corruptions": ["fog", "snow"], "severity": 2}
    data = load("cifar10_c", tmp_path, dataset_settings=settings)
    expected = np.concatenate([corrupted["fog"][4:8], corrupted["snow"][4:8]])
    np.testing.assert_array_equal(data.test_images, expected)
    assert data.test_labels.tolist() == [3, 1, 4, 1] * 2 and data.name == "cifar10_c"
    np.testing.assert_array_equal(data.train_images, clean.train_images)
    with pytest.raises(MissingFileError, match=r"has no frost.npy; found are 3 .npy"):
        load("cifar10_c", tmp_path, dataset_settings={**settings, "corruptions": ["frost"]})
    with pytest.raises(ConfigError, match="severity must be from 1 to 5"):
        load("cifar10_c", tmp_path, dataset_settings={**settings, "severity": 6})
    with pytest.raises(MissingFileError, match="must be CIFAR-10-C's directory"):
        load("cifar10_c", tmp_path)


def test_domains_are_a_column_and_every_group_is_split(tmp_path, capsys):
    counts = {("photo", "dog"): 10, ("photo", "house"): 5, ("sketch", "dog"): 5}
    for (domain, kind), count in counts.items():
        folder = tmp_path / domain / kind
        folder.mkdir(parents=True)
        for number in range(count):
            image = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / f"{number}.png")
    data = load("domain_folder", tmp_path)
    assert data.class_names == ("dog", "house")
    assert "sketch has no house" in capsys.readouterr().err
    train = list(zip(data.columns["domain"], data.train_labels.tolist(), strict=True))
    assert [train.count(g) for g in (("photo", 0), ("photo", 1), ("sketch", 0))] == [8, 4, 4]
    assert np.bincount(data.test_labels).tolist() == [3, 1]
    with pytest.raises(SemanticFLError, match="at least two of each"):
        load("domain_folder", tmp_path / "photo")
    context = DatasetContext(ExperimentConfig(dataset="domain_folder"))
    with pytest.raises(SemanticFLError, match="data_dir must be the directory of domain_folder"):
        domain_folder.domain_folder(None, context)


def put_fashion_mnist(directory, images=12, labels=12):
    directory.mkdir(parents=True)
    for split in ("train", "t10k"):
        write_idx(directory / f"{split}-images-idx3-ubyte.gz", np.zeros((images, 28, 28)))
        write_idx(directory / f"{split}-labels-idx1-ubyte.gz", np.zeros(labels))


def put_svhn(directory, images=None, labels=None):
    directory.mkdir(parents=True)
    images = np.zeros((32, 32, 3, 4), np.uint8) if images is None else images
    for split in ("train", "test"):
        y = np.ones((4, 1)) if labels is None else labels
        savemat(directory / f"{split}_32x32.mat", {"X": images, "y": y})


def put_femnist(directory, x=0.5, y=(0, 61)):
    user = {"x": [[x] * 784] * len(y), "y": list(y)}
    for split in ("train", "test"):
        (directory / split).mkdir(parents=True)
        (directory / split / "a.json").write_text(json.dumps({"user_data": {"me": user}}))


@pytest.mark.parametrize(
    ("name", "put", "message"),
    [
        ("fashion_mnist", put_fashion_mnist, "idx3-ubyte; name its folder, .*in/side$"),
        ("svhn", put_svhn, r"has no train_32x32\.mat; name its folder, .*in/side$"),
        ("femnist", put_femnist, "no .json files in .*; found are 1 folder .in.; 2 .json"),
    ],
)
def test_files_that_lie_deeper_or_packed_are_said(tmp_path, name, put, message):
    put(tmp_path / "x" / "in" / "side")
    with pytest.raises(MissingFileError, match=message):
        load(name, tmp_path / "x")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(SemanticFLError, match=f"directory of {name}'s files; .*x.zip is a file"):
        load(name, tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("name", "put", "values", "message"),
    [
        ("fashion_mnist", put_fashion_mnist, {"labels": 11}, "labels.* each of 12 images, has .11"),
        (
            "fashion_mnist",
            put_fashion_mnist,
            {"images": 0},
            r"images.* must hold images, .*\[0, 28",
        ),
        ("svhn", put_svhn, {"labels": np.full((4, 1), 11)}, "must have y from 1 to 10"),
        ("svhn", put_svhn, {"labels": np.full((4, 1), 2.5)}, "must have y from 1 to 10"),
        ("svhn", put_svhn, {"labels": np.full((4, 1), np.nan)}, "must have y from 1 to 10"),
        (
            "svhn",
            put_svhn,
            {"labels": np.ones((3, 1))},
            r"must have X uint8 \[32, 32, 3, n\] and y",
        ),
        ("svhn", put_svhn, {"images": np.zeros((4, 32, 32, 3), np.uint8)}, "must have X uint8"),
        ("femnist", put_femnist, {"x": 200}, "me must have x from 0 to 1"),
        ("femnist", put_femnist, {"x": -0.5}, "me must have x from 0 to 1"),
        ("femnist", put_femnist, {"x": float("nan")}, "me must have x from 0 to 1"),
        ("femnist", put_femnist, {"y": [0, 62]}, "me must have y among 0 to 61"),
        ("femnist", put_femnist, {"y": [0, 2.7]}, "me must have y among 0 to 61"),
        ("femnist", put_femnist, {"y": [0, 2**40]}, "me must have y among 0 to 61"),
    ],
)
def test_values_out_of_range_are_named_and_not_cut(tmp_path, name, put, values, message):
    put(tmp_path / "x", **values)
    with pytest.raises(SemanticFLError, match=rf"x/.*{message}"):
        load(name, tmp_path / "x")


def test_what_is_no_image_of_a_domain_is_counted(tmp_path, capsys):
    for name in ("photo/cat/0.png", "photo/cat/1.png", "photo/dog/0.png", "art/dog/0.png"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "x" / name)
    Image.new("RGB", (4, 4)).save(tmp_path / "x" / "photo" / "stray.png")
    (tmp_path / "x" / "art" / "dog" / "1.heic").write_bytes(b"")
    (tmp_path / "x" / "art" / "dog" / "2.png").symlink_to("gone")
    message = r"2 of 6 images: art/dog/2.png \(a link .*\), photo/stray.png \(in no folder DOMAIN"
    with pytest.raises(SemanticFLError, match=message):
        load("domain_folder", tmp_path / "x")
    for name in ("photo/dog/1.png", "art/dog/3.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "x" / name)
    load("domain_folder", tmp_path / "x", unreadable="skip")
    assert "not read are 1 .heic" in capsys.readouterr().err
    (tmp_path / "x" / "photo" / "Cat-").mkdir()
    (tmp_path / "x" / "photo" / "cat").rename(tmp_path / "x" / "photo" / "dog_")
    with pytest.raises(SemanticFLError, match="differ by more than '_', '-' and spaces"):
        load("domain_folder", tmp_path / "x", unreadable="skip")
