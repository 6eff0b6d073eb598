"""Parquet files as the Hugging Face hub exports them."""

import io
import json
import sys

import pytest
from PIL import Image

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.errors import MissingDependencyError, SemanticFLError
from semanticfl_jax.files import GIT_LFS_POINTER

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

WNIDS = ["n02", "n01", "n03"]
IDS = [f"{wnid}{i:06d}" for i, wnid in enumerate(WNIDS)]


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def png(value, size=4):
    content = io.BytesIO()
    Image.new("RGB", (size, size), (value, 0, 0)).save(content, "png")
    return content.getvalue()


def write(path, labels, names, first=0, *, image="image", label="label", more=None, described=True):
    """A file of one-coloured images; values count up from `first`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        image: [{"bytes": png(first + i), "path": f"{i}.png"} for i in range(len(labels))],
        label: labels,
        **(more or {}),
    }
    features = {label: {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if described else None
    pq.write_table(pa.table(rows).replace_schema_metadata(metadata), path)


def load(name, path, **options):
    return sources.from_config(ExperimentConfig(dataset=name, data_dir=str(path), **options))


def values(images):
    return images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("above", ["", "data"])
def test_tiny_imagenet(tmp_path, above, capsys):
    """Labels follow the order of the WordNet ids, as those of the original files do."""
    root = tmp_path / "hub"
    write(root / "data" / "train-00000-of-00002-abc.parquet", [0, 1, 2], IDS)
    write(root / "data" / "train-00001-of-00002-def.parquet", [2, 0], IDS, 3)
    write(root / "data" / "valid-00000-of-00001-ghi.parquet", [1, 2, 0], IDS, 10)
    for _ in range(2):
        dataset = load("tiny_imagenet", root / above)
        assert values(dataset.train_images) == [0, 1, 2, 3, 4]
        assert dataset.train_labels.tolist() == [1, 0, 2, 2, 1]
        assert dataset.test_labels.tolist() == [0, 2, 1]
        assert dataset.class_names == tuple(sorted(IDS))
        assert "no words.txt; classes are called by their WordNet ids" in capsys.readouterr().err
    words = "".join(f"{wnid}\tname {wnid}, other\n" for wnid in IDS)
    (root / "data" / "words.txt").write_text(words)
    for cache in (root / "data").glob(".decoded*"):
        cache.rename(tmp_path / cache.name)
    assert load("tiny_imagenet", root).class_names == tuple(f"name {wnid}" for wnid in sorted(IDS))


@pytest.mark.parametrize("layout", ["plain_text/{}-00000-of-00001.parquet", "x/{}/0000.parquet"])
def test_cifar(tmp_path, layout):
    names = [f"c_{i}" for i in range(100)]
    labels = list(range(99, -1, -1))
    coarse = {"coarse_label": [label // 5 for label in labels]}
    for split, first in (("train", 0), ("test", 7)):
        options = {"image": "img", "label": "fine_label", "more": coarse}
        write(tmp_path / layout.format(split), labels, names, first, **options)
    dataset = load("cifar100", tmp_path)
    assert values(dataset.train_images) == list(range(100))
    assert values(dataset.test_images) == list(range(7, 107))
    assert dataset.train_labels.tolist() == dataset.test_labels.tolist() == labels
    assert len(dataset.class_names) == 100 and dataset.class_names[99] == "c 99"
    assert dataset.columns["coarse_label"].tolist() == [str(label // 5) for label in labels]
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not in .*: found are .*2 \.parquet"):
        load("cifar10", tmp_path)


def test_rows_that_cannot_be_used_are_named(tmp_path):
    names = [f"c{i}" for i in range(10)]
    write(tmp_path / "train-0.parquet", [0, None, 2, 9], names, label="label")
    write(tmp_path / "test-0.parquet", list(range(10)), names, label="label")
    with pytest.raises(ValueError, match=r"1 of 14 images: train/1 \(no class\)"):
        load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="no train image of c1, c3"):
        load("cifar10", tmp_path, unreadable="skip")
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"train-0\.parquet cannot be read"):
        load("cifar10", tmp_path)


def test_what_to_install_is_said(tmp_path, monkeypatch):
    write(tmp_path / "train-0.parquet", [0], IDS)
    write(tmp_path / "valid-0.parquet", [0], IDS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingDependencyError, match=r"parquet files in .*semanticfl-jax\[parquet\]"
    ):
        load("tiny_imagenet", tmp_path)


NAMES = [f"c{i}" for i in range(10)]


def test_of_files_that_are_numbered_none_may_be_missing(tmp_path):
    for i in (0, 2):
        write(tmp_path / f"train-0000{i}-of-00003-abc.parquet", list(range(10)), NAMES)
    write(tmp_path / "test-00000-of-00001.parquet", list(range(10)), NAMES)
    with pytest.raises(FileNotFoundError, match=r"of 3 files train, .*\(train-00001-of-00003\)"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("again", ["0-of-00002 (1)", "0-of-00002-def", "0-of-00001-def"])
def test_a_part_that_is_there_twice_is_not_read_twice(tmp_path, again):
    for part in ("0-of-00002-abc", "1-of-00002-abc", again):
        write(tmp_path / f"train-0000{part}.parquet", list(range(10)), NAMES)
    write(tmp_path / "test-00000-of-00001.parquet", list(range(10)), NAMES)
    with pytest.raises(SemanticFLError, match="are of two downloads of the same images"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("labels", [NAMES, [0.5] * 10, [[1]] * 10])
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_that_are_no_whole_numbers_are_refused(tmp_path, split, labels):
    for each in ("train", "test"):
        write(tmp_path / f"{each}-0.parquet", labels if each == split else list(range(10)), NAMES)
    message = f"the column label of {split} must be whole numbers, the classes, and is of type"
    with pytest.raises(ValueError, match=message):
        load("cifar10", tmp_path)


def test_files_of_one_split_that_do_not_fit(tmp_path):
    write(tmp_path / "train-0.parquet", list(range(10)), NAMES)
    write(tmp_path / "train-1.parquet", NAMES, NAMES)
    write(tmp_path / "test-0.parquet", list(range(10)), NAMES)
    with pytest.raises(ValueError, match=r"train cannot be read: Schema at index 1") as failed:
        load("cifar10", tmp_path)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_pointers_of_git_lfs(tmp_path, split):
    for each in ("train", "test"):
        write(tmp_path / f"{each}-0.parquet", list(range(10)), NAMES)
    (tmp_path / f"{split}-0.parquet").write_bytes(GIT_LFS_POINTER + b"v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=rf"{split}-0\.parquet is a pointer of Git LFS,"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"bytes": None, "path": "7.png"}, "the path 7.png, and not the bytes"),
        ("7.png", "the path 7.png, and not the bytes"),
        ([1, 2], "no image's bytes"),
    ],
)
def test_rows_without_the_bytes_of_an_image(tmp_path, value, reason):
    write(tmp_path / "train-0.parquet", list(range(10)), NAMES, more={"img": [value] * 10})
    write(tmp_path / "test-0.parquet", list(range(10)), NAMES)
    train = pq.read_table(tmp_path / "train-0.parquet")
    train = train.drop_columns("image").rename_columns({"img": "image"})
    pq.write_table(train, tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match=rf"10 of 20 images: train/0 \(the row has {reason}"):
        load("cifar10", tmp_path)
