"""From lists of image files to arrays: decoded once, in parallel, into a memory-mapped cache.

What cannot be used, missing or damaged, is counted and named, and refused unless the user says
`unreadable=skip`; then it is left out, and every start says so again.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from tqdm import tqdm

from semanticfl_jax.data.sources.array_cache import (
    RowWriter,
    cached_arrays,
    put_columns,
    take_columns,
)
from semanticfl_jax.data.sources.image_formats import describe_unread, image_suffixes, read_image
from semanticfl_jax.devices.cpu_threads import available_cores
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import user_cache_dir

#: Images that one thread decodes at a time; small ones would otherwise mostly wait for each other.
CHUNK = 16
#: Files named in a message, of those that cannot be used.
NAMED = 5
#: Changes when the same files would give another cache.
FORMAT = 3
SKIP = "unreadable=skip leaves them out"


class Files(Protocol):
    """Where images come from: a directory, an archive, or the rows of parquet files."""

    path: Path

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added."""
        ...

    def fingerprint(self) -> str:
        """Tell contents apart, without reading them all."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return one file, to be read; from any thread."""
        ...


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files of one split, in the order their images are to have.

    Attributes:
      names: n files of the tree.
      labels: int [n].
      columns: further values of every image, each str [n], None where one is missing.
      problems: files that should be here and cannot be used, with the reason.
      unread: files beside the images that are none, or of a format that is not read.
      notes: what every start says, a sentence each.
      no_columns: why there are no columns; "" where there are.
    """

    names: Sequence[str]
    labels: Sequence[int]
    columns: Mapping[str, Sequence[str | None]] = dataclasses.field(default_factory=dict)
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unread: Sequence[str] = ()
    notes: Sequence[str] = ()
    no_columns: str = ""


def decode(
    open_file: Callable[[str], BinaryIO], names: Sequence[str], side: int = 0
) -> Iterator[np.ndarray | str]:
    """Decode files in parallel, in order; a file that cannot be gives the reason instead.

    Threads, because Pillow decodes and resizes without holding Python's lock. A JPEG of 64x64 takes
    some 0.14 ms of a core, one of 500x375 brought to 64x64 some 2 ms.
    """

    def one(name: str) -> np.ndarray | str:
        try:
            with open_file(name) as file:
                return read_image(file, side)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise what they like
            return str(error) or type(error).__name__

    def chunk(of: Sequence[str]) -> list[np.ndarray | str]:
        return [one(name) for name in of]

    threads = available_cores()
    chunks = (names[start : start + CHUNK] for start in range(0, len(names), CHUNK))
    with ThreadPoolExecutor(threads) as pool:
        # A bounded number under way: results must not pile up in memory.
        running = collections.deque(
            pool.submit(chunk, part) for part in itertools.islice(chunks, 2 * threads)
        )
        while running:
            done = running.popleft().result()
            running.extend(pool.submit(chunk, part) for part in itertools.islice(chunks, 1))
            yield from done


def load_images(
    dataset: str,
    tree: Files,
    list_files: Callable[[], tuple[Sequence[str], Mapping[str, Listing]]],
    *,
    side: int = 0,
    unreadable: str = "refuse",
    column: str | None = None,
) -> dict[str, Any]:
    """Return the arrays of a data set of image files, from the cache if it is of these.

    The cache is written beside the files, or under the user's cache directory where those are
    read-only.

    Args:
      dataset: its name, for messages and the cache's.
      tree: where the files are.
      list_files: gives the class names, in label order, and the listings "train" and "test"; called
        only when there is no cache.
      side: see `read_image`; 0: all images must have one size.
      unreadable: "refuse" or "skip" files that cannot be used.
      column: that must be there, with a value for every training image.

    Returns:
      `train_images`, `test_images` uint8 [n, H, W, 3], `train_labels`, `test_labels` int32 [n],
      all memory-mapped; `class_names`, a tuple of str; `columns`, arrays [n] of the training
      images' further values; `mean` and `std` of each channel of the training images, in 0..1.

    Raises:
      SemanticFLError: if files cannot be used and are not to be skipped, a class has no image, the
        images have different sizes, or the column cannot be used.
    """
    formats = hashlib.sha256(" ".join(sorted(image_suffixes())).encode()).hexdigest()[:4]
    fingerprint = f"{tree.fingerprint()[:12]}-{side or 'as-is'}-{FORMAT}{formats}"
    places = [
        tree.cache_prefix.with_name(f"{tree.cache_prefix.name}-{dataset}-{fingerprint}"),
        user_cache_dir() / f"{dataset}-{tree.path.name}-{fingerprint}",
    ]
    refuse = unreadable == "refuse"
    provenance = {"dataset": dataset, "files": str(tree.path), "image_size": side}
    arrays: dict[str, Any] = cached_arrays(
        places, lambda directory: _build(tree, list_files, directory, side, refuse), provenance
    )
    report = json.loads(str(arrays.pop("report")))
    if report["unusable"] and refuse:
        raise SemanticFLError(f"{tree.path}: cannot use {report['unusable']}; {SKIP}")
    mean, std = arrays.pop("moments")
    loaded = {
        **take_columns(arrays),
        "class_names": tuple(map(str, arrays["class_names"])),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
        "own_moments": True,
    }
    if column is not None and column not in loaded["columns"]:
        reasons = report["columns"]
        known = ", ".join([*loaded["columns"], *filter(None, reasons)]) or "none"
        reason = reasons.get(column) or reasons.get("") or f"the columns are {known}"
        raise SemanticFLError(f"partition.column {column!r} cannot be used: {reason}")
    for line in report["notes"]:
        print(line, file=sys.stderr)
    if report["unread"]:
        print(f"{tree.path}: not read are {report['unread']}", file=sys.stderr)
    if report["unusable"]:
        print(f"{tree.path}: goes on without {report['unusable']}", file=sys.stderr)
    return loaded


def _build(
    tree: Files,
    list_files: Callable[[], tuple[Sequence[str], Mapping[str, Listing]]],
    directory: Path,
    side: int,
    refuse: bool,
) -> dict[str, np.ndarray]:
    """Decode the images into `directory`; return the other arrays of the cache.

    "report" is what every start says, as JSON: "unusable", "unread", "notes", and "columns", why
    columns are missing: by name, or "" for all.
    """
    class_names, listings = list_files()
    arrays, problems, total, firsts = {}, {}, 0, []
    for split, listing in listings.items():
        found = _decode_split(tree, split, listing, directory, side)
        problems |= found.pop("problems")
        firsts += found.pop("first")
        arrays |= found
        total += len(listing.names) + len(listing.problems)
    unusable = f"{len(problems)} of {total} images: {describe_problems(problems)}"
    if problems and refuse:
        raise SemanticFLError(f"{tree.path}: cannot use {unusable}; {SKIP}")
    for split in listings:
        counts = np.bincount(arrays[f"{split}_labels"], minlength=len(class_names))
        empty = [class_names[label] for label in np.flatnonzero(counts == 0).tolist()]
        if empty:
            raise SemanticFLError(f"{tree.path}: no {split} image of {', '.join(empty[:NAMED])}")
    _require_one_size(tree, *firsts)
    images = np.load(directory / "train_images.npy", mmap_mode="r")
    report = {
        "unusable": unusable if problems else "",
        "unread": describe_unread(name for of in listings.values() for name in of.unread),
        "notes": [note for of in listings.values() for note in of.notes],
        "columns": _missing_columns(listings["train"]),
    }
    return {
        **arrays,
        "class_names": np.array(class_names),
        "moments": _moments(images),
        "report": np.array(json.dumps(report)),
    }


def _missing_columns(listing: Listing) -> dict[str, str]:
    reasons = {"": listing.no_columns} if listing.no_columns else {}
    for key, values in listing.columns.items():
        without = [name for name, v in zip(listing.names, values, strict=True) if v is None]
        if without:
            named = ", ".join(without[:NAMED]) + (", ..." if len(without) > NAMED else "")
            reasons[key] = f"{len(without)} of {len(values)} images have no value: {named}"
    return reasons


def _decode_split(
    tree: Files, split: str, listing: Listing, directory: Path, side: int
) -> dict[str, Any]:
    """Write the images; return the other arrays, `problems`, and `first` with name and shape."""
    problems, kept, first = dict(listing.problems), [], []
    images = decode(tree.open, listing.names, side)
    bar = tqdm(listing.names, desc=f"decoding {split}", unit=" images", disable=None)
    with RowWriter(directory / f"{split}_images.npy") as writer:
        for i, (name, image) in enumerate(zip(bar, images, strict=True)):
            if isinstance(image, str):
                problems[name] = image
                continue
            first = first or [(name, image.shape)]
            _require_one_size(tree, *first, (name, image.shape))
            writer.append(image)
            kept.append(i)
    arrays = {f"{split}_labels": np.asarray(listing.labels, np.int32)[kept]}
    if split == "train":
        whole = {key: of for key, of in listing.columns.items() if None not in of}
        arrays |= put_columns({key: np.asarray(of, str)[kept] for key, of in whole.items()})
    return {**arrays, "problems": problems, "first": first}


def _require_one_size(tree: Files, *images: tuple[str, tuple[int, ...]]) -> None:
    """Raise SemanticFLError unless the images, given by name and shape, are of one size."""
    if len({shape for _, shape in images}) > 1:
        sizes = ", ".join(f"{name} {width}x{height}" for name, (height, width, _) in images)
        raise SemanticFLError(
            f"{tree.path}: images must have one size in pixels, but have several: {sizes}; with "
            "dataset=image_folder, image_size=N makes all N x N"
        )


def describe_problems(problems: Mapping[str, str]) -> str:
    """Return the first files that cannot be used, with the reasons."""
    named = [f"{name} ({reason})" for name, reason in itertools.islice(problems.items(), NAMED)]
    return ", ".join(named + ["..."] * (len(problems) > NAMED))


def _moments(images: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of each channel, in 0..1, float64 [2, 3], exactly."""
    counts = np.zeros((3, 256))
    for start in range(0, len(images), 1000):
        part = images[start : start + 1000].reshape(-1, 3)
        for channel, histogram in enumerate(counts):
            histogram += np.bincount(part[:, channel], minlength=256)
    values, share = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = share @ values
    variance = (share * np.square(values - mean[:, None])).sum(1)
    # A channel without any contrast must not be divided by 0.
    return np.stack([mean, np.maximum(np.sqrt(variance), 1 / 255)])
