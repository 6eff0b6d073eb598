"""CIFAR-10 and CIFAR-100 as published: binary files or Python's pickles, packed or not.

From https://www.cs.toronto.edu/~kriz/cifar.html, which describes both forms (Krizhevsky, 2009). An
image is 3,072 bytes: 1,024 of red, of green, of blue, each 32 rows of 32.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.data.sources import restricted_pickle
from semanticfl_jax.data.sources.array_cache import (
    cached_arrays,
    is_cached,
    put_columns,
    take_columns,
)
from semanticfl_jax.data.sources.contents import walk
from semanticfl_jax.data.sources.download import download, md5_of
from semanticfl_jax.data.sources.file_tree import Archive, Directory, read_text
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import user_cache_dir

HOME = "https://www.cs.toronto.edu/~kriz/"
#: Published archives and their MD5; the first of a data set is the one that is downloaded.
ARCHIVES: Mapping[str, Mapping[str, str]] = {
    "cifar10": {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    },
    "cifar100": {
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
    },
}
_PIXELS = 3 * 32 * 32
_PUBLISHED = {"train": 50_000, "test": 10_000}
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """One form of one data set.

    Attributes:
      splits: the files of each split, in order; the first one tells the form.
      labels: what an image has before its pixels, or the pickles' keys; the last is its class.
      names: for each of `labels`, the file of its names, or the key in that of all names.
      meta: the pickle of names; "" in the binary form.
    """

    splits: Mapping[str, Sequence[str]]
    labels: Sequence[str]
    names: Sequence[str]
    meta: str = ""

    @property
    def files(self) -> list[str]:
        """All files that are read."""
        names = [self.meta] if self.meta else list(self.names)
        return [*self.splits["train"], *self.splits["test"], *names]


_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
LAYOUTS: Mapping[str, Sequence[Layout]] = {
    "cifar10": (
        Layout(
            {"train": [f"{name}.bin" for name in _BATCHES], "test": ["test_batch.bin"]},
            ["label"],
            ["batches.meta.txt"],
        ),
        Layout(
            {"train": _BATCHES, "test": ["test_batch"]}, ["labels"], ["label_names"], "batches.meta"
        ),
    ),
    "cifar100": (
        Layout(
            {"train": ["train.bin"], "test": ["test.bin"]},
            ["coarse_label", "label"],
            ["coarse_label_names.txt", "fine_label_names.txt"],
        ),
        Layout(
            {"train": ["train"], "test": ["test"]},
            ["coarse_labels", "fine_labels"],
            ["coarse_label_names", "fine_label_names"],
            "meta",
        ),
    ),
}


class Original:
    """Where a data set's files were found.

    Attributes:
      tree: the directory or archive.
      name: of the data set, "cifar10" or "cifar100".
    """

    def __init__(self, tree: Directory | Archive, name: str):
        self.tree, self.name = tree, name

    @functools.cached_property
    def located(self) -> tuple[str, Layout] | None:
        """The prefix of the files' names, and their form; None if there are none."""
        try:
            names = self.tree.names
        except SemanticFLError as error:
            raise SemanticFLError(f"{error}{_not_published(self.tree.path)}") from None
        for layout in LAYOUTS[self.name]:
            for file in (*layout.splits["train"], *layout.splits["test"]):
                found = [name for name in names if f"/{name}".endswith(f"/{file}")]
                if found:
                    return min(found, key=len).removesuffix(file), layout
        return None

    @property
    def prefix(self) -> str:
        """Of the files' names in the tree."""
        return self.located[0] if self.located else ""

    @property
    def layout(self) -> Layout:
        """The files' form."""
        return self.located[1] if self.located else LAYOUTS[self.name][0]

    @property
    def missing(self) -> list[str]:
        """Files of the form that are not there."""
        there = set(self.tree.names)
        return [name for name in self.layout.files if f"{self.prefix}{name}" not in there]

    @property
    def cache_places(self) -> list[Path]:
        """Directories that a cache of the arrays may be in, best first."""
        fingerprint = f"{self.name}-{self.tree.fingerprint()[:12]}-{FORMAT}"
        beside = self.tree.cache_prefix
        return [
            beside.with_name(f"{beside.name}-{fingerprint}"),
            user_cache_dir() / f"{self.tree.path.name}-{fingerprint}",
        ]


def find_original(root: Path, name: str) -> Original | None:
    """Return where the files of "cifar10" or "cifar100" are; whole ones and unpacked ones first.

    Args:
      root: their directory or archive, one of the files, or a directory up to three levels above.
      name: of the data set.

    Raises:
      SemanticFLError: for an archive that is damaged.
    """
    cut = None
    for original in _candidates(root, name):
        # With a cache no archive has to be unpacked to see what is in it.
        if is_cached(original.cache_places) or (original.located and not original.missing):
            return original
        cut = cut or (original if original.located else None)
    return cut


def _candidates(root: Path, name: str) -> Iterator[Original]:
    layouts = LAYOUTS[name]
    if root.is_file():
        in_folder = any(root.name in layout.files for layout in layouts)
        yield Original(Directory(root.parent) if in_folder else Archive(root), name)
        return
    number = name.removeprefix("cifar")
    packed = re.compile(rf"cifar[-_]?{number}[-_.](?:.*\.)?(?:tar|tgz|gz|bz2|xz|zip)")
    # The pickle of CIFAR-100 is called "train", as many a file is.
    marks = {layout.splits["train"][0]: layout.files[-1] for layout in layouts}
    archives = []
    for path in walk(root):
        if path.name in marks and path.is_file() and (path.parent / marks[path.name]).is_file():
            yield Original(Directory(path.parent), name)
        elif packed.fullmatch(path.name.lower()) and path.is_file():
            archives.append(path)
    for path in archives:
        yield Original(Archive(path), name)


def download_original(root: Path, name: str) -> Original:
    """Download a data set's archive into the directory `root`, and return where it is.

    Raises:
      SemanticFLError: if that fails.
    """
    archive, md5 = next(iter(ARCHIVES[name].items()))
    download(HOME + archive, root / archive, md5)
    return Original(Archive(root / archive), name)


def load_original(original: Original) -> dict[str, Any]:
    """Return arrays of CIFAR's files, as `prepared.load_prepared` gives them, in the files' order.

    Of CIFAR-100, `coarse_label` is a column. The cache is written beside the files, or under the
    user's cache directory where those are read-only.

    Raises:
      SemanticFLError: if files are missing or damaged.
    """
    provenance = {"dataset": original.name, "files": str(original.tree.path)}
    arrays = cached_arrays(original.cache_places, lambda _: _read(original), provenance)
    names = tuple(map(str, arrays["class_names"]))
    return {**take_columns(arrays), "class_names": names}


def _read(original: Original) -> dict[str, np.ndarray]:
    tree, layout = original.tree, original.layout
    if original.missing:
        raise MissingFileError(
            f"{tree.path / original.prefix} is not whole: missing are {', '.join(original.missing)}"
        )
    if isinstance(tree, Archive):
        changed = _not_published(tree.path)
        if changed:
            print(f"{tree.path}{changed}", file=sys.stderr)
    names = _names(original)
    arrays: dict[str, np.ndarray] = {"class_names": np.array(names[-1])}
    for split, files in layout.splits.items():
        parts = [_batch(original, file, [len(of) for of in names]) for file in files]
        images = np.concatenate([pixels for pixels, _ in parts])
        # Planes of colour become colours of pixels.
        arrays[f"{split}_images"] = np.ascontiguousarray(
            images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        )
        labels = np.concatenate([of for _, of in parts], axis=1)
        arrays[f"{split}_labels"] = labels[-1].astype(np.int32)
        if split == "train" and len(labels) > 1:
            arrays |= put_columns({"coarse_label": labels[0].astype(np.int32)})
        if len(images) != _PUBLISHED[split]:
            print(
                f"{tree.path}: {len(images)} images in {split}; {original.name} as published has "
                f"{_PUBLISHED[split]}",
                file=sys.stderr,
            )
    return arrays


def _batch(original: Original, file: str, classes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 [n, 3072] and labels [kinds, n] of one file, checked."""
    layout, count = original.layout, len(original.layout.labels)
    where = f"{original.tree.path}: {original.prefix}{file}"
    content = _content(original, file)
    if layout.meta:
        batch = _pickled(content, where)
        try:
            pixels = np.asarray(batch.get("data"))
            labels = np.array([batch.get(key) for key in layout.labels])
        except ValueError:  # lists of several lengths
            pixels = labels = np.zeros(0)
    else:
        if not content or len(content) % (count + _PIXELS):
            raise SemanticFLError(
                f"{where} is damaged or cut off: {len(content)} bytes are no multiple of "
                f"{count + _PIXELS}, an image's"
            )
        rows = np.frombuffer(content, np.uint8).reshape(-1, count + _PIXELS)
        pixels, labels = rows[:, count:], rows[:, :count].T
    whole = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == _PIXELS
    whole = whole and len(pixels) > 0
    if not whole or labels.dtype.kind not in "iu" or labels.shape != (count, len(pixels)):
        raise SemanticFLError(
            f"{where} must hold uint8 [n, {_PIXELS}] and n of {', '.join(layout.labels)}"
        )
    for of, limit in zip(labels, classes, strict=True):
        if of.min() < 0 or of.max() >= limit:
            raise SemanticFLError(
                f"{where} is damaged: labels go from {of.min()} to {of.max()}, and there are "
                f"{limit} names"
            )
    return pixels, labels


def _names(original: Original) -> list[list[str]]:
    """Return the names of each kind of label."""
    layout = original.layout
    if layout.meta:
        where = f"{original.tree.path}: {original.prefix}{layout.meta}"
        meta = _pickled(_content(original, layout.meta), where)
        found = [meta.get(key) for key in layout.names]
        if not all(isinstance(of, list) and of for of in found):
            raise SemanticFLError(f"{where} must hold lists {', '.join(layout.names)}")
        return [[n.decode() if isinstance(n, bytes) else str(n) for n in of or ()] for of in found]
    texts = [read_text(original.tree, f"{original.prefix}{name}") for name in layout.names]
    return [text.split() for text in texts]


def _content(original: Original, file: str) -> bytes:
    try:
        with original.tree.open(f"{original.prefix}{file}") as opened:
            return opened.read()
    except OSError as error:
        raise SemanticFLError(f"{original.tree.path}: cannot read {file}: {error}") from None


def _pickled(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = restricted_pickle.loads(content)
    except SemanticFLError as error:
        raise SemanticFLError(f"{where}: {error}") from None
    if not isinstance(value, dict):
        raise SemanticFLError(f"{where} must be a pickled dict")
    return {key.decode() if isinstance(key, bytes) else key: of for key, of in value.items()}


def _not_published(path: Path) -> str:
    """Return what to add to a message about an archive of a published name."""
    published = {name: md5 for of in ARCHIVES.values() for name, md5 in of.items()}.get(path.name)
    if published is None or (found := md5_of(path)) == published:
        return ""
    return f" has the MD5 {found}, and not the published {published}: it was changed or damaged"
