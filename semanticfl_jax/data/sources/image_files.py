"""From lists of image files to arrays: decoded once, in parallel, into a memory-mapped cache.

What cannot be used, missing or damaged, is counted and named, and refused unless the user says
`unreadable=skip`; then it is left out, and every start says so again.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from semanticfl_jax.data.sources.array_cache import (
    RowWriter,
    cached_arrays,
    put_columns,
    take_columns,
)
from semanticfl_jax.data.sources.file_tree import Archive, Directory
from semanticfl_jax.devices.cpu_threads import available_cores
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import user_cache_dir

#: What Pillow reads and people have.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
#: Images that one thread decodes at a time; small ones would otherwise mostly wait for each other.
CHUNK = 16
#: Files named in a message, of those that cannot be used.
NAMED = 5
#: Changes when the same files would give another cache.
FORMAT = 1
SKIP = "unreadable=skip leaves them out"


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files of one split, in the order their images are to have.

    Attributes:
      names: n files of the tree.
      labels: int [n].
      columns: further values of every image, each str [n].
      problems: files that should be here and cannot be used, with the reason.
    """

    names: Sequence[str]
    labels: Sequence[int]
    columns: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return name.lower().endswith(SUFFIXES)


def read_image(file: BinaryIO, side: int = 0) -> np.ndarray:
    """Decodes one image to uint8 [H, W, 3]; grey becomes RGB, transparency is dropped.

    Args:
      file: open for reading.
      side: if not 0, the image is cut to its central square and resized to it (bicubic).

    Raises:
      Exception: of many kinds, if it is no whole image; ValueError for more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        if image.mode[0] in "IF":
            # Pillow's conversion would cut values off at 255.
            raise SemanticFLError("more than 8 bits a channel")
        rgb = image.convert("RGB")
    if side:
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(rgb, np.uint8)


def decode(
    open_file: Callable[[str], BinaryIO], names: Sequence[str], side: int = 0
) -> Iterator[np.ndarray | str]:
    """Decodes files in parallel, in order; a file that cannot be gives the reason instead.

    Threads, because Pillow decodes and resizes without holding Python's lock. A JPEG of 64x64 takes
    some 0.14 ms of a core, one of 500x375 brought to 64x64 some 2 ms.
    """

    def one(name: str) -> np.ndarray | str:
        from PIL import UnidentifiedImageError

        try:
            with open_file(name) as file:
                return read_image(file, side)
        except UnidentifiedImageError:
            return "no image"  # Pillow's own words name an object in memory
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
    tree: Directory | Archive,
    list_files: Callable[[], tuple[Sequence[str], Mapping[str, Listing]]],
    *,
    side: int = 0,
    unreadable: str = "refuse",
) -> dict[str, Any]:
    """The arrays of a data set of image files, from the cache if the files are those it is of.

    The cache is written beside the files, or under the user's cache directory where those are
    read-only.

    Args:
      dataset: its name, for messages and the cache's.
      tree: where the files are.
      list_files: gives the class names, in label order, and the listings "train" and "test"; called
        only when there is no cache.
      side: see `read_image`; 0: all images must have one size.
      unreadable: "refuse" or "skip" files that cannot be used.

    Returns:
      `train_images`, `test_images` uint8 [n, H, W, 3], `train_labels`, `test_labels` int32 [n],
      all memory-mapped; `class_names`, a tuple of str; `columns`, arrays [n] of the training
      images' further values; `mean` and `std` of each channel of the training images, in 0..1.

    Raises:
      ValueError: if files cannot be used and are not to be skipped, a class has no image, or the
        images have different sizes.
    """
    fingerprint = f"{tree.fingerprint()[:12]}-{side or 'as-is'}-{FORMAT}"
    places = [
        tree.cache_prefix.with_name(f"{tree.cache_prefix.name}-{dataset}-{fingerprint}"),
        user_cache_dir() / f"{dataset}-{tree.path.name}-{fingerprint}",
    ]

    def build(directory: Path) -> dict[str, np.ndarray]:
        class_names, listings = list_files()
        arrays, problems, total, firsts = {}, {}, 0, []
        for split, listing in listings.items():
            found = _decode_split(tree, split, listing, directory, side)
            problems |= found.pop("problems")
            firsts += found.pop("first")
            arrays |= found
            total += len(listing.names) + len(listing.problems)
        unusable = f"{len(problems)} of {total} images: {describe_problems(problems)}"
        if problems and unreadable == "refuse":
            raise SemanticFLError(f"{tree.path}: cannot use {unusable}; {SKIP}")
        for split in listings:
            counts = np.bincount(arrays[f"{split}_labels"], minlength=len(class_names))
            empty = [class_names[label] for label in np.flatnonzero(counts == 0).tolist()]
            if empty:
                raise SemanticFLError(
                    f"{tree.path}: no {split} image of {', '.join(empty[:NAMED])}"
                )
        _require_one_size(tree, *firsts)
        images = np.load(directory / "train_images.npy", mmap_mode="r")
        return {
            **arrays,
            "class_names": np.array(class_names),
            "moments": _moments(images),
            "unusable": np.array(unusable if problems else ""),
        }

    provenance = {"dataset": dataset, "files": str(tree.path), "image_size": side}
    arrays: dict[str, Any] = cached_arrays(places, build, provenance)
    unusable = str(arrays.pop("unusable"))
    if unusable and unreadable == "refuse":
        raise SemanticFLError(f"{tree.path}: cannot use {unusable}; {SKIP}")
    if unusable:
        print(f"{tree.path}: goes on without {unusable}", file=sys.stderr)
    mean, std = arrays.pop("moments")
    return {
        **take_columns(arrays),
        "class_names": tuple(map(str, arrays["class_names"])),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
    }


def _decode_split(
    tree: Directory | Archive, split: str, listing: Listing, directory: Path, side: int
) -> dict[str, Any]:
    """Writes the images; returns the other arrays, `problems`, and `first` with name and shape."""
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
        columns = {key: np.asarray(values)[kept] for key, values in listing.columns.items()}
        arrays |= put_columns(columns)
    return {**arrays, "problems": problems, "first": first}


def _require_one_size(tree: Directory | Archive, *images: tuple[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless the images, given by name and shape, are of one size."""
    if len({shape for _, shape in images}) > 1:
        sizes = ", ".join(f"{name} {width}x{height}" for name, (height, width, _) in images)
        raise SemanticFLError(
            f"{tree.path}: images must have one size in pixels, but have several: {sizes}; with "
            "dataset=image_folder, image_size=N makes all N x N"
        )


def describe_problems(problems: Mapping[str, str]) -> str:
    """The first files that cannot be used, with the reasons."""
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
