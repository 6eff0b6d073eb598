"""Image classification sets prepared by TensorFlow Datasets (TFDS), read without TensorFlow.

The images are decoded once into a memory-mapped cache; after that not even TFDS is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
from collections.abc import Iterator
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
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import user_cache_dir
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.paths import local_path

#: Record format that can be read without TensorFlow.
ARRAY_RECORD = "array_record"
#: Images decoded between two steps of the progress bar.
CHUNK = 250


def load_prepared(
    name: str, data_dir: str | os.PathLike | None, builder: str | None = None
) -> dict[str, Any]:
    """Arrays of a TFDS data set with features `image` (uint8, one shape) and `label`.

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
      FileNotFoundError: if the data set is not prepared and cannot be, for want of TensorFlow.
      MissingDependencyError: if its images are not in the cache yet, without TFDS.
    """
    root = local_path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets", "data_dir"
    )
    directory = find_prepared(root / name) or _prepare(name, root, builder)
    fingerprint = _fingerprint(directory)
    places = [
        directory / f"decoded-{fingerprint}",
        user_cache_dir() / f"{name}-{directory.name}-{fingerprint}",
    ]
    provenance = {"dataset": name, "version": directory.name, "fingerprint": fingerprint}
    arrays = cached_arrays(places, lambda cache: _decode(directory, cache), provenance)
    class_names = (directory / "label.labels.txt").read_text().split("\n")
    return {**take_columns(arrays), "class_names": tuple(line for line in class_names if line)}


def find_prepared(dataset_dir: Path) -> Path | None:
    """The directory of the newest prepared version; one readable without TensorFlow goes first."""
    found = []
    for info in dataset_dir.glob("*/dataset_info.json"):
        version = info.parent.name.split(".")
        if all(part.isdigit() for part in version):
            found.append((_format(info.parent) == ARRAY_RECORD, [*map(int, version)], info.parent))
    return max(found)[-1] if found else None


def _format(directory: Path) -> str:
    # Old preparations do not name their format: TFDS then means tfrecord.
    info = json.loads((directory / "dataset_info.json").read_text())
    return info.get("fileFormat", "tfrecord")


def _fingerprint(directory: Path) -> str:
    """Tells preparations apart by their description and the names and sizes of their records."""
    digest = hashlib.sha256((directory / "dataset_info.json").read_bytes())
    digest.update(b"with columns\n")
    for path in sorted(directory.glob(f"*.{_format(directory)}*")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def _require_tensorflow(problem: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingFileError(
            f"{problem}, and TensorFlow, which is needed for that once, is not installed: "
            "pip install 'semanticfl-jax[prepare]', or point data_dir (or TFDS_DATA_DIR) at a "
            "directory where it is prepared in array_record format"
        )


def _prepare(name: str, root: Path, module: str | None) -> Path:
    """Downloads and prepares the data set with TensorFlow."""
    _require_tensorflow(f"{name} is not prepared in {root / name}")
    with optional_imports("prepare", f"the preparation of {name}"):
        import tensorflow_datasets as tfds

    if module:
        importlib.import_module(module)
    builder = tfds.builder(name, data_dir=root, file_format=ARRAY_RECORD)
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _decode(directory: Path, cache: Path) -> dict[str, np.ndarray]:
    """Decodes the train and test splits: 10 to 20 s for CIFAR; threads would not speed PIL up."""
    if _format(directory) != ARRAY_RECORD:
        _require_tensorflow(f"{directory} holds {_format(directory)} files, to be decoded")
    with optional_imports("tfds", f"the data set in {directory}"):
        import array_record.python.array_record_data_source  # noqa: F401 (TFDS imports it late)
        import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    features = builder.info.features
    scalars = [name for name in features if features[name].shape == () and name != "label"]
    arrays, columns = {}, {name: [] for name in scalars}
    for split in ("train", "test"):
        total, labels = builder.info.splits[split].num_examples, []
        with (
            RowWriter(cache / f"{split}_images.npy") as images,
            tqdm(total=total, desc=f"decoding {split}", unit=" images", disable=None) as bar,
        ):
            for example in _examples(builder, split):
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


def _examples(builder, split: str) -> Iterator[dict[str, Any]]:
    """The split's examples, in the order they are stored."""
    if _format(Path(builder.data_dir)) != ARRAY_RECORD:
        with optional_imports("prepare", f"the data set in {builder.data_dir}"):
            import tensorflow_datasets as tfds

        yield from tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
        return
    source = builder.as_data_source(split)
    for start in range(0, len(source), CHUNK):
        yield from source.__getitems__(list(range(start, min(start + CHUNK, len(source)))))
