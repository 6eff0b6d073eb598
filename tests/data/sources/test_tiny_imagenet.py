"""TinyImageNet's original layout: a small one made here, and the real sample if present."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.data.sources import load_dataset
from semanticfl_jax.data.sources.tiny_imagenet import class_names

SHARED = Path(
    os.environ.get("SEMANTICFL_TEST_DATA") or Path(__file__).parents[3].parent / "shared" / "data"
)
SAMPLE = SHARED / "tiny-imagenet-200-sample.tar"
WNIDS = ("n03", "n01", "n02")
WORDS = "n01\tgoldfish, Carassius auratus\nn02\tpay-phone\nn03\tsoda bottle, pop\nn09\tentity\n"
TRAIN, VAL = 3, 2


def jpeg(rng, mode="RGB", side=64):
    pixels = rng.integers(0, 256, (side, side, 3) if mode == "RGB" else (side, side), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels, mode).save(content, "jpeg")
    return content.getvalue()


def decoded(content):
    """The independent reference: Pillow, one file at a time."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def write_layout(root):
    """Files by name; n02's second training image is grey."""
    rng = np.random.default_rng(0)
    files = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": WORDS.encode()}
    annotations = []
    for i, wnid in enumerate(WNIDS):
        boxes = [f"{wnid}_{k}.JPEG\t0\t10\t63\t58\n" for k in range(TRAIN)]
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(boxes).encode()
        for k in range(TRAIN):
            mode = "L" if (wnid, k) == ("n02", 1) else "RGB"
            files[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = jpeg(rng, mode)
        for k in range(VAL):
            name = f"val_{VAL * i + k}.JPEG"
            files[f"val/images/{name}"] = jpeg(rng)
            annotations.append(f"{name}\t{wnid}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(annotations).encode()
    files["test/images/test_0.JPEG"] = jpeg(rng)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return files


@pytest.fixture
def layout(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    root = tmp_path / "data" / "tiny-imagenet-200"
    return root, write_layout(root)


def load(path, **options):
    return load_dataset("tiny_imagenet", str(path), **options)


def pack(root, kind):
    """The layout as an archive, in another order than that of its names."""
    path = root.parent.parent / f"tiny.{kind}"
    files = sorted((p for p in root.rglob("*") if p.is_file()), reverse=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root.parent))
            archive.writestr("__MACOSX/tiny-imagenet-200/._wnids.txt", b"not for us")
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            for file in files:
                archive.add(file, Path(".") / file.relative_to(root.parent))
    return path


def check(dataset, files):
    order = sorted(WNIDS)
    assert dataset.class_names == ("goldfish", "pay-phone", "soda bottle")
    assert dataset.train_labels.tolist() == [label for label in range(3) for _ in range(TRAIN)]
    names = [f"train/{wnid}/images/{wnid}_{k}.JPEG" for wnid in order for k in range(TRAIN)]
    np.testing.assert_array_equal(dataset.train_images, [decoded(files[name]) for name in names])
    names = [f"val/images/val_{k}.JPEG" for k in range(VAL * 3)]
    np.testing.assert_array_equal(dataset.test_images, [decoded(files[name]) for name in names])
    assert dataset.test_labels.tolist() == [2, 2, 0, 0, 1, 1]
    assert dataset.mean == dataset.std == (0.5, 0.5, 0.5)
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32


@pytest.mark.parametrize("kind", ["directory", "parent", "zip", "tar", "tar.gz"])
def test_the_same_arrays_from_a_directory_and_every_archive(layout, kind, capsys):
    root, files = layout
    paths = {"directory": root, "parent": root.parent}
    path = paths.get(kind) or pack(root, kind)
    if kind not in paths:
        shutil.rmtree(root)
    for _ in range(2):
        check(load(path), files)
    assert capsys.readouterr().err.count("Writing a cache") == 1


def test_changed_files_are_decoded_again(layout):
    root, files = layout
    load(root)
    name = "val/images/val_3.JPEG"
    files[name] = jpeg(np.random.default_rng(9))
    (root / name).write_bytes(files[name])
    check(load(root), files)


@pytest.fixture
def damaged(layout):
    """A training and a validation image missing, one of each damaged, one nobody knows."""
    root, files = layout
    (root / "train/n01/images/n01_1.JPEG").unlink()
    (root / "val/images/val_4.JPEG").unlink()
    for name, content in {
        "train/n03/images/n03_0.JPEG": files["train/n03/images/n03_0.JPEG"][:700],
        "val/images/val_0.JPEG": b"no image at all",
        "val/images/val_77.JPEG": files["val/images/val_1.JPEG"],
    }.items():
        (root / name).write_bytes(content)
    return root


PROBLEMS = (
    "5 of 16 images: train/n01/images/n01_1.JPEG (missing), train/n03/images/n03_0.JPEG (image "
    "file is truncated"
)


@pytest.mark.parametrize("packed", [False, True])
def test_missing_and_damaged_files_are_counted_named_and_refused(damaged, packed):
    path = pack(damaged, "zip") if packed else damaged
    with pytest.raises(ValueError) as error:
        load(path)
    message = str(error.value).replace("tiny-imagenet-200/", "")
    assert PROBLEMS in message and "unreadable=skip" in message
    for name, reason in {
        "val_4": "missing",
        "val_77": "not in val_ann",
        "val_0": "no image",
    }.items():
        assert f"val/images/{name}.JPEG ({reason}" in message


def test_skipped_files_are_named_at_every_start_and_refused_when_asked(damaged, layout, capsys):
    _, files = layout
    for _ in range(2):
        dataset = load(damaged, unreadable="skip")
        assert PROBLEMS in capsys.readouterr().err
        assert dataset.train_labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
        assert dataset.test_labels.tolist() == [2, 0, 0, 1]
        expected = decoded(files["train/n03/images/n03_1.JPEG"])
        np.testing.assert_array_equal(dataset.train_images[5], expected)
    with pytest.raises(ValueError, match="5 of 16 images"):
        load(damaged)


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
@pytest.mark.parametrize("change", ["no folder", "all damaged", "unlisted folder", "no words"])
def test_half_a_data_set_is_refused_always(layout, unreadable, change):
    root, _ = layout
    message = "1 of the 3 classes in wnids.txt have no images in train: n01"
    if change == "no folder":
        shutil.rmtree(root / "train/n01")
    if change == "all damaged":
        for path in (root / "train/n01/images").iterdir():
            path.write_bytes(b"")
        message = "3 of 15 images" if unreadable == "refuse" else "no train image of goldfish"
    if change == "unlisted folder":
        shutil.copytree(root / "train/n01", root / "train/n04")
        message = "folders that wnids.txt does not: n04"
    if change == "no words":
        (root / "words.txt").unlink()
        message = "holds no words.txt"
    with pytest.raises(ValueError, match=message):
        load(root, unreadable=unreadable)


LONG = {"n03": "n03000003", "n01": "n01000001", "n02": "n02000002"}


def long_ids(root):
    """The same files with ids of their real length, by which folders are known."""
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        new = path.name
        for short, wnid in LONG.items():
            new = new.replace(short, wnid)
        if path.suffix == ".txt":
            text = path.read_text()
            for short, wnid in LONG.items():
                text = text.replace(short, wnid)
            path.write_text(text)
        path.rename(path.with_name(new))


@pytest.mark.parametrize("inner", ["", "images/"])
@pytest.mark.parametrize("removed", [(), ("val_annotations.txt",), ("wnids.txt", "words.txt")])
@pytest.mark.parametrize("packed", [False, True])
def test_validation_images_sorted_into_folders(layout, inner, removed, packed, capsys):
    root, files = layout
    lines = (root / "val/val_annotations.txt").read_text().splitlines()
    for line in lines:
        name, wnid = line.split("\t")[:2]
        (root / "val" / wnid / inner).mkdir(parents=True, exist_ok=True)
        (root / "val/images" / name).rename(root / "val" / wnid / inner / name)
    (root / "val/images").rmdir()
    for path in [*(root / name for name in removed), *(root / "val" / name for name in removed)]:
        path.unlink(missing_ok=True)
    long_ids(root)
    dataset = load(pack(root, "zip") if packed else root)
    assert np.bincount(dataset.train_labels).tolist() == [TRAIN] * 3
    assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    names = [f"val/images/val_{k}.JPEG" for k in (2, 3, 4, 5, 0, 1)]
    np.testing.assert_array_equal(dataset.test_images, [decoded(files[name]) for name in names])
    without = "words.txt" in removed
    names = tuple(sorted(LONG.values())) if without else ("goldfish", "pay-phone", "soda bottle")
    assert dataset.class_names == names
    assert ("classes are called by their WordNet ids" in capsys.readouterr().err) == without


def test_a_directory_one_or_two_levels_off_does(layout):
    root, files = layout
    for path in (root / "train", root / "train" / "n01", root.parent, root.parent.parent):
        check(load(path), files)
    pack(root, "zip").rename(root.parent.parent / "tiny-imagenet-200.zip")
    shutil.rmtree(root)
    check(load(root.parent.parent), files)


def test_broken_links_and_text_in_another_encoding_are_named(layout):
    root, _ = layout
    image = root / "train/n01/images/n01_1.JPEG"
    image.unlink()
    os.symlink("gone", image)
    with pytest.raises(ValueError, match=r"1 of 15 .*n01_1\.JPEG \(a link to what is not there\)"):
        load(root)
    (root / "words.txt").write_bytes(WORDS.replace("pop", "p\xf6p").encode("latin-1"))
    with pytest.raises(ValueError, match=r"words\.txt must be UTF-8 text"):
        load(root)


def test_other_layouts_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"no wnids\.txt"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*tiny\.zip"):
        load(tmp_path / "tiny.zip")
    (tmp_path / "tiny.zip").write_bytes(b"PK, but no more")
    with pytest.raises(ValueError, match=r"no whole \.zip or \.tar"):
        load(tmp_path / "tiny.zip")


def test_names_are_first_synonyms_told_apart_where_shared():
    words = {
        "n1": "maillot",
        "n2": "maillot, tank suit",
        "n3": "crane, bird",
        "n4": "crane, bird",
        "n5": "American_alligator, gator",
    }
    expected = ["maillot (n1)", "maillot, tank suit", "crane (n3)", "crane (n4)"]
    assert class_names(list(words), words) == [*expected, "American alligator"]
    with pytest.raises(ValueError, match="no names for n6"):
        class_names(["n1", "n6"], words)


def test_the_builder_reads_the_published_archive(layout, monkeypatch):
    """Without TensorFlow: what it would write, for a small archive in place of the download."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    from semanticfl_jax.data.sources import tiny_imagenet_builder

    root, files = layout
    monkeypatch.setattr(tiny_imagenet_builder, "CLASSES", 3)
    builder = tiny_imagenet_builder.TinyImagenet(data_dir=str(root.parent.parent / "tfds"))
    # Where TFDS looks for it.
    path = Path(tiny_imagenet_builder.__file__).with_name("checksums.tsv")
    info = checksums.load_url_infos(path)[tiny_imagenet_builder.URL]
    assert info.size == 248_100_043 and len(info.checksum) == 64
    assert tfds.builder_cls("tiny_imagenet") is tiny_imagenet_builder.TinyImagenet

    class Download:
        def download(self, url):
            return pack(root, "zip")

    splits = builder._split_generators(Download())
    assert builder.info.features["label"].names == ["goldfish", "pay-phone", "soda bottle"]
    examples = {split: dict(found) for split, found in splits.items()}
    assert {split: len(found) for split, found in examples.items()} == {"train": 9, "test": 6}
    example = examples["train"]["tiny-imagenet-200/train/n03/images/n03_2.JPEG"]
    assert example["image"].read() == files["train/n03/images/n03_2.JPEG"]
    assert example["label"] == 2
    grey = examples["train"]["tiny-imagenet-200/train/n02/images/n02_1.JPEG"]["image"]
    np.testing.assert_array_equal(grey, decoded(files["train/n02/images/n02_1.JPEG"]))


@pytest.mark.skipif(not SAMPLE.is_file(), reason=f"no TinyImageNet sample in {SHARED}")
def test_the_real_sample(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dataset = load(SAMPLE)
    assert dataset.train_images.shape == (20_000, 64, 64, 3)
    assert dataset.test_images.shape == (2_500, 64, 64, 3)
    assert np.bincount(dataset.train_labels).tolist() == [200] * 100
    assert np.bincount(dataset.test_labels).tolist() == [25] * 100
    assert dataset.class_names[:2] == ("goldfish", "bullfrog")
    assert len(set(dataset.class_names)) == 100
    with tarfile.open(SAMPLE) as archive:
        first = archive.extractfile("tiny-imagenet-200/train/n01443537/images/n01443537_0.JPEG")
        np.testing.assert_array_equal(dataset.train_images[0], decoded(first.read()))
