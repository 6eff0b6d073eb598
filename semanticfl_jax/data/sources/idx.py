"""The IDX files of MNIST and its likes: Fashion-MNIST, EMNIST.

A file is two zeros, a byte for the type (8: uint8), a byte for the number of axes, each axis as a
big-endian uint32, and the values; gzip packs it as it is published. Images of 28x28 grey pixels get
a margin of two black ones and three equal channels, [32, 32, 3], as the networks here want them
(our choice).
"""

from __future__ import annotations

import gzip
import string
import zlib
from pathlib import Path

import numpy as np

from semanticfl_jax.config.original_data import EMNISTConfig
from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.contents import missing_file
from semanticfl_jax.data.sources.dataset import ImageDataset
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import git_lfs_pointer
from semanticfl_jax.paths import local_path

_CLOTHES = (
    *("T-shirt", "pair of trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
#: Pixels of a side, margin included.
_SIDE = 32
#: Letters whose small form EMNIST's merged splits keep apart from the capital one.
_SMALL = "abdefghnqrt"


def fashion_mnist(settings: object, context: DatasetContext) -> ImageDataset:
    """Return Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) of its four files."""
    del settings
    return _load("fashion_mnist", context, ("train", "t10k"), _CLOTHES)


def emnist(settings: EMNISTConfig, context: DatasetContext) -> ImageDataset:
    """Return a split of EMNIST; its images lie on their sides in the files, and are set upright."""
    split = settings.split
    prefixes = (f"emnist-{split}-train", f"emnist-{split}-test")
    first = 1 if split == "letters" else 0
    return _load("emnist", context, prefixes, emnist_classes(split), first, turned=True)


def emnist_classes(split: str) -> tuple[str, ...]:
    """Return the names of a split's classes, in the order of its labels."""
    digits = [f"digit {digit}" for digit in string.digits]
    capitals = [f"capital letter {letter}" for letter in string.ascii_uppercase]
    if split in ("digits", "mnist"):
        return tuple(digits)
    if split == "letters":
        return tuple(f"letter {letter}" for letter in string.ascii_uppercase)
    small = string.ascii_lowercase if split == "byclass" else _SMALL
    return (*digits, *capitals, *(f"small letter {letter}" for letter in small))


def _load(
    name: str,
    context: DatasetContext,
    prefixes: tuple[str, str],
    class_names: tuple[str, ...],
    first: int = 0,
    turned: bool = False,
) -> ImageDataset:
    """Return the data set of four files; labels begin at `first`."""
    directory = directory_of(context, name)

    def split(prefix: str) -> tuple[np.ndarray, np.ndarray]:
        path = _find(directory, prefix, "images", 3)
        images = read_idx(path)
        if not images.size or images.ndim != 3:
            raise SemanticFLError(f"{path} must hold images, [n, h, w], has {list(images.shape)}")
        path = _find(directory, prefix, "labels", 1)
        labels = read_idx(path).astype(np.int32) - first
        if labels.shape != images.shape[:1]:
            raise SemanticFLError(
                f"{path} must have a label for each of {len(images)} images, has "
                f"{list(labels.shape)}"
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise SemanticFLError(
                f"{path} must have labels from {first} to {first + len(class_names) - 1}, "
                f"has {labels.min() + first} to {labels.max() + first}"
            )
        return padded(images.transpose(0, 2, 1) if turned else images), labels

    (images, labels), (test_images, test_labels) = map(split, prefixes)
    return ImageDataset.from_arrays(
        images, labels, test_images, test_labels, class_names, name=name
    )


def directory_of(context: DatasetContext, name: str) -> Path:
    """Return the directory that `data_dir` names."""
    if not context.config.data_dir:
        raise SemanticFLError(f"data_dir must be the directory of {name}'s files")
    directory = local_path(context.config.data_dir, "data_dir")
    if directory.is_file():
        raise SemanticFLError(
            f"data_dir must be the directory of {name}'s files; {directory} is a file: unpack it, "
            "and name the folder"
        )
    if not directory.is_dir():
        raise MissingFileError(f"data_dir: no directory {directory}")
    return directory


def _find(directory: Path, prefix: str, kind: str, axes: int) -> Path:
    """Return a file, packed or not, also as some programs call it when they unpack it."""
    names = [
        f"{prefix}-{kind}{separator}idx{axes}-ubyte{packed}"
        for packed in (".gz", "")
        for separator in ("-", ".")
    ]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise missing_file("data_dir", directory, *names)


def read_idx(path: Path) -> np.ndarray:
    """Return the array of an IDX file of bytes, packed by gzip or not: uint8.

    Raises:
      SemanticFLError: for another kind of file, or one that is cut off or damaged.
    """
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SemanticFLError(f"{path} is damaged or cut off: {error}") from None
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise SemanticFLError(f"{path} is {git_lfs_pointer(raw) or 'no IDX file of bytes'}")
    axes = raw[3]
    shape = tuple(np.frombuffer(raw, ">u4", min(axes, (len(raw) - 4) // 4), 4).tolist())
    start = 4 + 4 * axes
    if len(shape) < axes or len(raw) - start != np.prod(shape, dtype=np.int64):
        raise SemanticFLError(f"{path} is cut off, or not whole: {len(raw)} bytes for {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def padded(images: np.ndarray, background: int = 0) -> np.ndarray:
    """Return grey images uint8 [n, h, w] in the middle of [n, 32, 32] of a background."""
    if images.ndim != 3 or max(images.shape[1:]) > _SIDE:
        raise SemanticFLError(f"images must be [n, h, w] of {_SIDE} at most, got {images.shape}")
    margins = [((_SIDE - length) // 2, -((length - _SIDE) // 2)) for length in images.shape[1:]]
    return np.pad(images, [(0, 0), *margins], constant_values=background)
