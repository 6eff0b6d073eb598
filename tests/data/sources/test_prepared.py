"""Reading TFDS preparations: a tiny one made here, and a piece of the real CIFAR-10 if present."""

import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticfl_jax.data.sources import prepared
from semanticfl_jax.data.sources.prepared import find_preparation, find_prepared, load_prepared
from semanticfl_jax.data.sources.tfrecord import masked_crc32c, read_records

SHARED = Path(
    os.environ.get("SEMANTICFL_TEST_DATA") or Path(__file__).parents[3].parent / "shared" / "data"
)
REAL = SHARED / "tfds" / "cifar10" / "3.0.2"
COUNTS = {"train": 7, "test": 3}


def write_records(directory, records):
    """Array-record files of both splits, one shard each, and the description beside them."""
    from array_record.python.array_record_module import ArrayRecordWriter

    directory.mkdir(parents=True)
    for split, values in records.items():
        path = directory / f"cifar10-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for value in values:
            writer.write(value)
        writer.close()
    splits = [
        {"name": split, "numBytes": "1", "shardLengths": [str(len(values))]}
        for split, values in records.items()
    ]
    info = {"name": "cifar10", "version": directory.name, "fileFormat": "array_record"}
    (directory / "dataset_info.json").write_text(json.dumps({**info, "splits": splits}))
    base = "tensorflow_datasets.core.features"
    shape = {"dimensions": ["32", "32", "3"]}
    label = {"classLabel": {"numClasses": "10"}}
    features = {
        "id": {
            "pythonClassName": f"{base}.text_feature.Text",
            "text": {},
        },
        "coarse_label": {"pythonClassName": f"{base}.class_label_feature.ClassLabel", **label},
        "image": {
            "pythonClassName": f"{base}.image_feature.Image",
            "image": {"shape": shape, "dtype": "uint8", "encodingFormat": "png"},
        },
        "label": {
            "pythonClassName": f"{base}.class_label_feature.ClassLabel",
            **label,
        },
    }
    description = {
        "pythonClassName": f"{base}.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (directory / "features.json").write_text(json.dumps(description))
    names = "\n".join(["airplane", "automobile", *"cdefghi", "pick_up"])
    (directory / "label.labels.txt").write_text(names)


def record(image, label):
    """A serialised tf.train.Example."""
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(image).save(png, "png")
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(png.getvalue())
    example.features.feature["label"].int64_list.value.append(label)
    example.features.feature["coarse_label"].int64_list.value.append(label // 5)
    example.features.feature["id"].bytes_list.value.append(f"image {label}".encode())
    return example.SerializeToString()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n))
        for split, n in COUNTS.items()
    }


@pytest.fixture
def data_dir(tmp_path, arrays, monkeypatch):
    """A prepared CIFAR-10 of ten images; caches go to the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    records = {
        split: [record(*pair) for pair in zip(*arrays[split], strict=True)] for split in arrays
    }
    write_records(tmp_path / "tfds" / "cifar10" / "3.0.2", records)
    return tmp_path / "tfds"


def test_reads_what_was_prepared(data_dir, arrays):
    loaded = load_prepared("cifar10", data_dir)
    for split, (images, labels) in arrays.items():
        np.testing.assert_array_equal(loaded[f"{split}_images"], images)
        np.testing.assert_array_equal(loaded[f"{split}_labels"], labels)
        assert loaded[f"{split}_labels"].dtype == np.int32
    assert len(loaded["class_names"]) == 10 and loaded["class_names"][-1] == "pick_up"
    labels = arrays["train"][1]
    coarse, names = loaded["columns"]["coarse_label"], loaded["columns"]["id"]
    np.testing.assert_array_equal(coarse, labels // 5)
    assert coarse.dtype == np.int32 and list(loaded["columns"]) == ["coarse_label", "id"]
    np.testing.assert_array_equal(names, [f"image {label}" for label in labels])
    (cache,) = (data_dir / "cifar10" / "3.0.2").glob("decoded-*")
    assert json.loads((cache / "provenance.json").read_text())["version"] == "3.0.2"


def test_cache_goes_to_the_user_where_the_data_is_read_only(data_dir, tmp_path):
    directory = data_dir / "cifar10" / "3.0.2"
    before = sorted(directory.iterdir())
    directory.chmod(0o555)
    load_prepared("cifar10", data_dir)
    directory.chmod(0o755)
    assert sorted(directory.iterdir()) == before
    assert len(list((tmp_path / "user" / "semanticfl_jax").glob("cifar10-3.0.2-*"))) == 1


def test_changed_records_are_decoded_again(data_dir, arrays, tmp_path):
    load_prepared("cifar10", data_dir)
    images, labels = arrays["test"]
    other = {"train": [record(images[0], 4)] * 2, "test": [record(images[1], labels[1])]}
    write_records(tmp_path / "other" / "3.0.2", other)
    for path in (tmp_path / "other" / "3.0.2").iterdir():
        os.replace(path, data_dir / "cifar10" / "3.0.2" / path.name)
    np.testing.assert_array_equal(load_prepared("cifar10", data_dir)["train_labels"], [4, 4])


def test_neither_tensorflow_nor_once_cached_tfds_is_imported(data_dir):
    script = """
        import sys
        from semanticfl_jax.data.sources import load_dataset
        load_dataset("cifar10", sys.argv[1])
        heavy = {"tensorflow", "tensorflow_datasets", "torch", "sklearn", "jax"}
        print(sorted(heavy & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(data_dir)]
    for expected in (["tensorflow_datasets"], []):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no prepared CIFAR-10 in {SHARED}")
def test_reads_real_cifar10(tmp_path, monkeypatch):
    """Its first test images, in a preparation of their own: all 60,000 take too long."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    reader = ArrayRecordReader(str(REAL / "cifar10-test.array_record-00000"))
    directory = tmp_path / "cifar10" / "3.0.2"
    first = [reader.read([i])[0] for i in range(300)]
    reader.close()
    write_records(directory, {"train": first[:260], "test": first[260:]})
    for name in ("features.json", "label.labels.txt"):
        (directory / name).write_bytes((REAL / name).read_bytes())
    loaded = load_prepared("cifar10", tmp_path)
    assert loaded["class_names"][:3] == ("airplane", "automobile", "bird")
    source = tfds.data_source("cifar10", split="test", data_dir=str(SHARED / "tfds"))
    for i in (0, 259):
        np.testing.assert_array_equal(loaded["train_images"][i], source[i]["image"])
        assert loaded["train_labels"][i] == source[i]["label"]
    np.testing.assert_array_equal(loaded["test_images"][0], source[260]["image"])


def test_newest_version_readable_without_tensorflow_goes_first(tmp_path):
    formats = {"3.0.2": "array_record", "3.0.10": "array_record", "4.0.0": "tfrecord", "x": "?"}
    for version, file_format in formats.items():
        (tmp_path / version).mkdir()
        info = json.dumps({"fileFormat": file_format})
        (tmp_path / version / "dataset_info.json").write_text(info)
    assert find_prepared(tmp_path) == tmp_path / "3.0.10"
    assert find_prepared(tmp_path / "3.0.2") is None


@pytest.fixture
def no_tensorflow(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        prepared.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow" else find_spec(name),
    )


def test_unprepared_data_without_tensorflow(tmp_path, monkeypatch, no_tensorflow):
    message = r"cifar100 is not prepared in {}.*pip install 'semanticfl-jax\[prepare\]'"
    with pytest.raises(FileNotFoundError, match=message.format(tmp_path / "cifar100")):
        load_prepared("cifar100", tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "other"))
    with pytest.raises(FileNotFoundError, match=message.format(tmp_path / "other" / "cifar100")):
        load_prepared("cifar100", None)


def write_tfrecords(directory):
    """The array_record files of a directory once more as tfrecord, beside them."""
    from array_record.python.array_record_module import ArrayRecordReader

    for path in directory.glob("*.array_record-*"):
        reader = ArrayRecordReader(str(path))
        records = [reader.read([i])[0] for i in range(reader.num_records())]
        reader.close()
        name = path.name.replace("array_record", "tfrecord")
        (directory / name).write_bytes(b"".join(map(framed, records)))


def framed(record):
    head = struct.pack("<Q", len(record))
    return head + masked_crc32c([head]).tobytes() + record + masked_crc32c([record]).tobytes()


@pytest.mark.parametrize("described", ["array_record", "tfrecord"])
@pytest.mark.parametrize("kept", ["both", "tfrecord", "array_record"])
def test_whichever_format_is_there_is_read(data_dir, arrays, described, kept, no_tensorflow):
    directory = data_dir / "cifar10" / "3.0.2"
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', f'"{described}"'))
    write_tfrecords(directory)
    for path in directory.glob("*_record-*" if kept == "tfrecord" else "*.tfrecord-*"):
        if kept != "both":
            path.unlink()
    loaded = load_prepared("cifar10", data_dir)
    for split, (images, labels) in arrays.items():
        np.testing.assert_array_equal(loaded[f"{split}_images"], images)
        np.testing.assert_array_equal(loaded[f"{split}_labels"], labels)


def test_checksums_are_those_of_the_specification():
    """RFC 3720, B.4: CRC-32C of 32 bytes; the mask undone by hand."""
    texts = [bytes(32), b"\xff" * 32, bytes(range(32)), b"123456789", b""]
    masked = masked_crc32c(texts).astype(np.uint64)
    rotated = (masked - 0xA282EAD8) % 2**32
    found = ((rotated >> np.uint64(17)) | (rotated << np.uint64(15))) % 2**32
    expected = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0xE3069283, 0]
    assert found.tolist() == expected


def test_damaged_and_cut_tfrecords_are_named(tmp_path):
    path = tmp_path / "x.tfrecord"
    whole = b"".join(framed(bytes([i]) * 50) for i in range(9))
    size = len(whole) // 9
    path.write_bytes(whole)
    assert [record[0] for record in read_records(path)] == list(range(9))
    for cut in (1, 11, 20, size - 1):
        path.write_bytes(whole[: 4 * size + cut])
        with pytest.raises(ValueError, match=r"x\.tfrecord is damaged or cut off after 4 records"):
            list(read_records(path))
    for place in (0, 7, 9, 30, size - 1):
        broken = bytearray(whole)
        broken[5 * size + place] ^= 4
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"x\.tfrecord is damaged"):
            list(read_records(path))


@pytest.mark.parametrize("above", ["", "cifar10", "cifar10/3.0.2"])
def test_a_directory_one_or_two_levels_off_does(data_dir, arrays, above):
    for place in (data_dir / above, data_dir.parent):
        loaded = load_prepared("cifar10", place)
        np.testing.assert_array_equal(loaded["test_labels"], arrays["test"][1])
        assert find_preparation(place, "cifar100") is None
    # Another data set in such a place is not taken for it.
    info = data_dir / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(info.read_text().replace('"cifar10"', '"cifar100"'))
    assert find_preparation(data_dir / above, "cifar10") is None


def test_missing_and_cut_files_are_named(data_dir):
    directory = data_dir / "cifar10" / "3.0.2"
    (records,) = directory.glob("cifar10-test.array_record-*")
    whole = records.read_bytes()
    for content in (whole[:-20], b""):
        records.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"test\.array_record-00000-of-00001 is damaged or cut"
        ):
            load_prepared("cifar10", data_dir)
    records.unlink()
    message = r"3\.0\.2 is not whole: of the 1 array_record files of test, .* missing: 0; copy"
    with pytest.raises(FileNotFoundError, match=message):
        load_prepared("cifar10", data_dir)
    records.write_bytes(whole)
    info = directory / "dataset_info.json"
    for text, message in ((info.read_text()[:90], "json is damaged"), ("[]", "must be a JSON obj")):
        info.write_text(text)
        with pytest.raises(ValueError, match=message):
            load_prepared("cifar10", data_dir)


def test_unprepared_data_with_tensorflow_is_prepared_as_array_record(
    data_dir, tmp_path, monkeypatch, arrays
):
    import tensorflow_datasets as tfds

    class Builder:
        def __init__(self, name, data_dir, file_format):
            assert (name, file_format) == ("cifar10", "array_record")
            self.data_dir = str(Path(data_dir) / name / "3.0.2")

        def download_and_prepare(self):
            Path(self.data_dir).parent.mkdir(parents=True)
            os.rename(data_dir / "cifar10" / "3.0.2", self.data_dir)

    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds, "builder", Builder)
    loaded = load_prepared("cifar10", tmp_path / "fresh")
    np.testing.assert_array_equal(loaded["train_images"], arrays["train"][0])
