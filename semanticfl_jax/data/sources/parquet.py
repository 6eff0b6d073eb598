"""Image data sets in parquet files, as the Hugging Face hub exports them; read with pyarrow.

    train-00000-of-00001.parquet, test-... or valid-...     at any depth, or train/0000.parquet

A row has an image as bytes of a file, {"bytes": ..., "path": ...}, and the number of its class,
whose names are in the files' schema.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from semanticfl_jax.data.sources.contents import walk
from semanticfl_jax.data.sources.image_files import Listing, load_images
from semanticfl_jax.data.sources.split_folders import ROLES, role_of
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import git_lfs_pointer
from semanticfl_jax.optional import optional_imports

#: By data set: the column of the class, and of what else becomes a column.
_LABELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "cifar10": ("label", ()),
    "cifar100": ("fine_label", ("coarse_label",)),
    "tiny_imagenet": ("label", ()),
}
_CLASSES = {"cifar10": 10, "cifar100": 100}
#: Name of one of several files of a split, without its suffix; a hash may follow.
_PART = re.compile(r"(?P<name>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?:-\w+)?")
_WNID = re.compile(r"n\d{8}")


@dataclasses.dataclass(frozen=True)
class ParquetFiles:
    """The rows of a data set's parquet files, each as if it were a file called "SPLIT/ROW".

    Attributes:
      path: directory that holds the files, at some depth.
      splits: the files of "train" and "test".
      image: name of the column of images.
      label: name of the column of classes.
      columns: names of further columns.
      class_names: in label order; empty where the files do not tell.
    """

    path: Path
    splits: Mapping[str, Sequence[Path]]
    image: str
    label: str
    columns: Sequence[str]
    class_names: Sequence[str]

    @property
    def cache_prefix(self) -> Path:
        """Where a cache of what is read goes; a suffix is added."""
        return self.path / ".decoded"

    def fingerprint(self) -> str:
        """Tell files apart by their names, sizes and times."""
        digest = hashlib.sha256()
        for split, paths in self.splits.items():
            for path in paths:
                status = path.stat()
                place = os.path.relpath(path, self.path)
                digest.update(f"{split} {place} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def open(self, name: str) -> BinaryIO:
        """Return one row's image, to be read; from any thread."""
        split, row = name.split("/")
        value = self._columns[split][0][int(row)].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(content, bytes) and content:
            return io.BytesIO(content)
        path = value.get("path") if isinstance(value, dict) else value
        if isinstance(path, str):
            raise OSError(f"the row has the path {path}, and not the bytes of the image")
        raise OSError("the row has no image's bytes")

    @functools.cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """Images, classes and further columns of each split, as pyarrow's arrays."""
        with optional_imports("parquet", f"the parquet files in {self.path}"):
            import pyarrow
            from pyarrow import parquet
        wanted, found = [self.image, self.label, *self.columns], {}
        for split, paths in self.splits.items():
            try:
                tables = [parquet.read_table(path, columns=wanted) for path in paths]
                whole = pyarrow.concat_tables(tables)
            except (pyarrow.ArrowException, OSError) as error:
                raise _unreadable(f"{self.path}: {split}", paths, error) from None
            found[split] = [whole[name] for name in wanted]
            if not pyarrow.types.is_integer(found[split][1].type):
                raise SemanticFLError(
                    f"{self.path}: the column {self.label} of {split} must be whole numbers, the "
                    f"classes, and is of type {found[split][1].type}"
                )
        return found

    def listings(self) -> dict[str, Listing]:
        """Return the rows of each split; rows without a class are problems."""
        listings = {}
        for split, (_, labels, *others) in self._columns.items():
            numbers = [-1 if label is None else label for label in labels.to_pylist()]
            known = [i for i, label in enumerate(numbers) if label >= 0]
            columns = {
                name: [str(values[i]) for i in known]
                for name, values in zip(self.columns, map(np.asarray, others), strict=True)
            }
            listings[split] = Listing(
                [f"{split}/{i}" for i in known],
                [numbers[i] for i in known],
                columns,
                {f"{split}/{i}": "no class" for i, label in enumerate(numbers) if label < 0},
            )
        return listings


def find_parquet(root: Path, name: str) -> ParquetFiles | None:
    """Return the parquet files of a data set at a path, or up to three levels below it.

    Args:
      root: a directory.
      name: of the data set, as in `_LABELS`.

    Raises:
      MissingDependencyError: if there are parquet files of splits, and pyarrow is not installed.
      SemanticFLError: if a file is damaged.
    """
    groups: dict[Path, dict[str, list[Path]]] = {}
    for path in walk(root):
        role = _role(path) if path.suffix.lower() == ".parquet" else None
        if role is not None:
            by_folder = role_of(path.stem.partition("-")[0]) is None
            home = path.parent.parent if by_folder else path.parent
            groups.setdefault(home, {}).setdefault(role, []).append(path)
    for home, roles in groups.items():
        held_out = next((role for role in ("test", "val") if role in roles), None)
        if "train" in roles and held_out is not None:
            _require_all([*roles["train"], *roles[held_out]])
            splits = {"train": sorted(roles["train"]), "test": sorted(roles[held_out])}
            found = _described(home, splits, name)
            if found is not None:
                return found
    return None


def load_parquet(rows: ParquetFiles, name: str, *, unreadable: str = "refuse") -> dict[str, Any]:
    """Return arrays of a data set in parquet files, as `load_images` gives them."""

    def list_rows() -> tuple[Sequence[str], Mapping[str, Listing]]:
        listings = rows.listings()
        count = 1 + max(max(listing.labels, default=0) for listing in listings.values())
        names = rows.class_names or [f"class {number}" for number in range(count)]
        if count > len(names):
            raise SemanticFLError(
                f"{rows.path}: classes go to {count - 1}, and there are {len(names)} names"
            )
        return names, listings

    return load_images(name, rows, list_rows, unreadable=unreadable)


def _role(path: Path) -> str | None:
    """Return the split of a file: by the first word of its name, or by its folder's."""
    for words in (path.stem.partition("-")[0], path.parent.name):
        role = role_of(words)
        if role in ROLES:
            return role
    return None


def _require_all(paths: Sequence[Path]) -> None:
    """Raise unless of files that are called "NAME-00000-of-00002" each is there, and once."""
    there: dict[tuple[Path, str], dict[int, Path]] = {}
    counts: dict[tuple[Path, str], int] = {}
    for path in paths:
        part = _PART.match(path.stem)
        if part is None:
            continue
        whole, count, number = (path.parent, part["name"]), int(part["count"]), int(part["number"])
        known = there.setdefault(whole, {})
        if counts.setdefault(whole, count) != count or number in known:
            other = known.get(number, next(iter(known.values())))
            raise SemanticFLError(
                f"{path.parent}: {other.name} and {path.name} are of two downloads of the same "
                "images; keep the files of one"
            )
        known[number] = path
    for (folder, name), known in there.items():
        count = counts[folder, name]
        missing = sorted(set(range(count)) - known.keys())
        if missing:
            some = ", ".join(f"{name}-{number:05d}-of-{count:05d}" for number in missing[:5])
            raise MissingFileError(
                f"{folder}: of {count} files {name}, {len(missing)} are missing ({some}); download "
                "them, too"
            )


def _unreadable(where: str, paths: Sequence[Path], error: Exception) -> SemanticFLError:
    """Return the error for files of which pyarrow could not read one, in a line."""
    for path in paths:
        pointer = git_lfs_pointer(path)
        if pointer:
            return SemanticFLError(f"{path} is {pointer}")
    return SemanticFLError(f"{where} cannot be read: {' '.join(str(error).split())[:300]}")


def _described(home: Path, splits: Mapping[str, Sequence[Path]], name: str) -> ParquetFiles | None:
    """Return the files with what their schema says; None if they are those of another data set."""
    with optional_imports("parquet", f"{name} in the parquet files in {home}"):
        import pyarrow
        from pyarrow import parquet
    try:
        schema = parquet.read_schema(splits["train"][0])
    except (pyarrow.ArrowException, OSError) as error:
        first = splits["train"][0]
        raise _unreadable(str(first), [first], error) from None
    label, columns = _LABELS[name]
    image = next((column for column in ("image", "img") if column in schema.names), None)
    if image is None or label not in schema.names:
        return None
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        names = []
    if names and len(names) != _CLASSES.get(name, len(names)):
        return None
    if names and name == "tiny_imagenet" and not all(map(_WNID.fullmatch, names)):
        return None
    there = [column for column in columns if column in schema.names]
    return ParquetFiles(home, splits, image, label, there, names)
