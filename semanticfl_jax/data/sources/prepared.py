"""Image classification sets prepared by TensorFlow Datasets (TFDS), read without TensorFlow.

Of its formats array_record and tfrecord are read, with the description that TFDS writes beside
them. The images are decoded once into a memory-mapped cache; after that not even TFDS is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from semanticfl_jax.data.sources.array_cache import (
    RowWriter,
    cached_arrays,
    put_columns,
    take_columns,
)
from semanticfl_jax.data.sources.tfrecord import read_records
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import user_cache_dir
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.paths import local_path

#: Record formats that are read without TensorFlow, the first that is whole is used.
ARRAY_RECORD, TFRECORD = "array_record", "tfrecord"
#: Records read between two steps of the progress bar.
CHUNK = 250
SPLITS = ("train", "test")


def load_prepared(
    name: str, data_dir: str | os.PathLike | None, builder: str | None = None
) -> dict[str, Any]:
    """Return arrays of a TFDS data set with features `image` (uint8, one shape) and `label`.

    Its other features that are one number or text an image, such as CIFAR-100's `coarse_label`,
    become columns. The cache is written beside the records, or under the user's cache directory
    where those are read-only. Its name carries a fingerprint of the records: other records, another
    cache.

    Args:
      name: TFDS's name of the data set, such as "cifar10".
      data_dir: TFDS's data directory; by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
      builder: module with the builder of a data set that TFDS does not have.

    Returns:
      `train_images`, `test_images` uint8 `[n, H, W, 3]`, `train_labels`, `test_labels` int32 `[n]`,
      all memory-mapped; `class_names`, a tuple of str; `columns`, int32 or str arrays `[n]` of the
      training images by name.

    Raises:
      MissingFileError: if the data set is not prepared and cannot be, for want of TensorFlow.
      MissingDependencyError: if its images are not in the cache yet, without TFDS.
    """
    root = data_root(data_dir)
    directory = find_preparation(root, name) or _prepare(name, root, builder)
    fingerprint = _fingerprint(directory)
    places = [
        directory / f"decoded-{fingerprint}",
        user_cache_dir() / f"{name}-{directory.name}-{fingerprint}",
    ]
    provenance = {"dataset": name, "version": directory.name, "fingerprint": fingerprint}
    arrays = cached_arrays(places, lambda cache: _decode(directory, cache), provenance)
    names = directory / "label.labels.txt"
    if not names.is_file():
        raise MissingFileError(f"{names}, with the names of the classes, is missing")
    class_names = names.read_text().split("\n")
    return {**take_columns(arrays), "class_names": tuple(line for line in class_names if line)}


def data_root(data_dir: str | os.PathLike | None) -> Path:
    """Return TFDS's data directory: the given one, `$TFDS_DATA_DIR`, or `~/tensorflow_datasets`."""
    if data_dir is not None:
        return local_path(data_dir, "data_dir")
    return local_path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "$TFDS_DATA_DIR")


def find_preparation(root: Path, name: str) -> Path | None:
    """Return the directory of a data set's newest version, wherever `root` is on the way.

    Args:
      root: TFDS's data directory, one that holds it, the data set's own in it, or a version's.
      name: TFDS's name of the data set.
    """
    for places in ((root / name,), (root,), (root.parent,), root.glob(f"*/{name}")):
        for place in places:
            found = find_prepared(place, name, only=root if place == root.parent else None)
            if found is not None:
                return found
    return None


def find_prepared(dataset_dir: Path, name: str = "", only: Path | None = None) -> Path | None:
    """Return the newest prepared version; one readable without TensorFlow goes first.

    Args:
      dataset_dir: holds a directory a version.
      name: what the data set must call itself, if it says its name.
      only: the only version that counts.
    """
    found = []
    for path in dataset_dir.glob("*/dataset_info.json"):
        version = path.parent.name.split(".")
        if all(part.isdigit() for part in version) and only in (None, path.parent):
            info = read_info(path.parent)
            if not name or info.get("name", name) == name:
                rank = (_format(path.parent, info) == ARRAY_RECORD, [*map(int, version)])
                found.append((*rank, path.parent))
    return max(found)[-1] if found else None


def read_info(directory: Path) -> dict[str, Any]:
    """Return what dataset_info.json says.

    Raises:
      SemanticFLError: if it is damaged.
    """
    path = directory / "dataset_info.json"
    try:
        info = json.loads(path.read_bytes())
    except ValueError as error:
        raise SemanticFLError(f"{path} is damaged: {error}") from None
    if not isinstance(info, dict):
        raise SemanticFLError(f"{path} must be a JSON object")
    return info


def _format(directory: Path, info: Mapping[str, Any]) -> str:
    """Return the format to read: of several one that is whole and needs no TensorFlow.

    Old preparations do not name theirs: TFDS then means tfrecord.
    """
    for kind in (ARRAY_RECORD, TFRECORD):
        shards = [_shards(directory, info, split, kind) for split in SPLITS]
        if all(files and None not in files for files in shards):
            return kind
    return info.get("fileFormat", TFRECORD)


def _shards(directory: Path, info: Mapping[str, Any], split: str, kind: str) -> list[Path | None]:
    """Return a split's files in order, None for each that is missing; empty without it."""
    lengths = _lengths(info, split)
    name = re.compile(rf"(?:.*-)?{split}\.{kind}-(\d+)(?:-of-(\d+))?")
    found: dict[int, Path] = {}
    for path in directory.glob(f"*{split}.{kind}-*"):
        match = name.fullmatch(path.name)
        if match and path.is_file() and int(match[2] or len(lengths)) == len(lengths):
            found[int(match[1])] = path
    return [found.get(number) for number in range(len(lengths))]


def _lengths(info: Mapping[str, Any], split: str) -> Sequence[str]:
    """Return the number of records in each of a split's files; none without the split."""
    splits = info.get("splits")
    for of in splits if isinstance(splits, list) else ():
        lengths = of.get("shardLengths") if isinstance(of, dict) else None
        if isinstance(lengths, list) and of.get("name") == split:
            return lengths
    return ()


def _fingerprint(directory: Path) -> str:
    """Tell preparations apart by their description and the names and sizes of their records."""
    digest = hashlib.sha256((directory / "dataset_info.json").read_bytes())
    digest.update(b"with columns\n")
    for path in sorted(directory.glob(f"*.{_format(directory, read_info(directory))}*")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def _require_tensorflow(problem: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingFileError(
            f"{problem}, and TensorFlow, which is needed for that once, is not installed: "
            "pip install 'semanticfl-jax[prepare]', or point data_dir (or TFDS_DATA_DIR) at a "
            "directory where it is prepared"
        )


def _prepare(name: str, root: Path, module: str | None) -> Path:
    """Download and prepare the data set with TensorFlow."""
    _require_tensorflow(f"{name} is not prepared in {root / name}")
    with optional_imports("prepare", f"the preparation of {name}"):
        import tensorflow_datasets as tfds

    if module:
        importlib.import_module(module)
    builder = tfds.builder(name, data_dir=root, file_format=ARRAY_RECORD)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _decode(directory: Path, cache: Path) -> dict[str, np.ndarray]:
    """Decode the train and test splits: 10 to 20 s for CIFAR; threads would not speed PIL up."""
    info = read_info(directory)
    with optional_imports("tfds", f"the data set in {directory}"):
        import tensorflow_datasets as tfds

    if not (directory / "features.json").is_file():
        raise MissingFileError(
            f"{directory / 'features.json'}, which says what records hold, is missing"
        )
    features = tfds.features.FeaturesDict.from_config(directory)
    # features.json is a map without an order.
    scalars = sorted(n for n in features if features[n].shape == () and n != "label")
    arrays, columns = {}, {name: [] for name in scalars}
    for split in SPLITS:
        total, labels = sum(map(int, _lengths(info, split))), []
        with (
            RowWriter(cache / f"{split}_images.npy") as images,
            tqdm(total=total, desc=f"decoding {split}", unit=" images", disable=None) as bar,
        ):
            for example in _examples(directory, info, split, features):
                images.append(np.asarray(example["image"]))
                labels.append(example["label"])
                for name in scalars if split == "train" else ():
                    columns[name].append(example[name])
                bar.update()
        if len(labels) != total:
            raise SemanticFLError(
                f"{directory}: {split} has {len(labels)} images instead of {total}"
            )
        arrays[f"{split}_labels"] = np.array(labels, np.int32)
    return {**arrays, **put_columns({name: _column(column) for name, column in columns.items()})}


def _column(values: list[Any]) -> np.ndarray:
    text = [value.decode() if isinstance(value, bytes) else value for value in values]
    array = np.array(text)
    return array.astype(np.int32) if array.dtype.kind in "iub" else array.astype(str)


def _examples(
    directory: Path, info: Mapping[str, Any], split: str, features: Any
) -> Iterator[dict[str, Any]]:
    """Return the split's examples, in the order they are stored.

    Raises:
      MissingFileError: if files of the split are missing.
    """
    kind = _format(directory, info)
    files = _shards(directory, info, split, kind)
    if not files:
        raise SemanticFLError(f"{directory}: dataset_info.json has no split {split}")
    if kind not in (ARRAY_RECORD, TFRECORD):
        _require_tensorflow(f"{directory} holds {kind} files, to be decoded")
        with optional_imports("prepare", f"the data set in {directory}"):
            import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(directory)
        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
        return
    missing = [number for number, path in enumerate(files) if path is None]
    if missing:
        some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise MissingFileError(
            f"{directory} is not whole: of the {len(files)} {kind} files of {split}, counted from "
            f"0, these are missing: {some}; copy them there, or prepare the data set anew"
        )
    yield from map(features.deserialize_example_np, _records(list(filter(None, files)), kind))


def _records(files: Sequence[Path], kind: str) -> Iterator[bytes]:
    """Return the records of files in their order."""
    if kind == TFRECORD:
        for path in files:
            yield from read_records(path)
        return
    with optional_imports("tfds", "array_record files"):
        from array_record.python.array_record_module import ArrayRecordReader
    for path in files:
        try:
            reader = ArrayRecordReader(str(path))
            if not reader.ok():
                raise ValueError("its end is missing")
            for start in range(0, reader.num_records(), CHUNK):
                yield from reader.read(start, min(start + CHUNK, reader.num_records()))
            reader.close()
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).partition("\n")[0]
            raise SemanticFLError(f"{path} is damaged or cut off: {reason}") from error
