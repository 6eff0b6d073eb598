"""Memory-mapped arrays on disk, computed once; an interruption never leaves half a cache.

A cache is a directory of `.npy` files and `provenance.json`. It is written under another name
beside its place and renamed, so that it is either there and whole or not there; of several writers
at once, the first one's is kept. What a killed writer leaves is removed by the next.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.array_files import read_npy
from semanticfl_jax.errors import SemanticFLError

PROVENANCE = "provenance.json"
#: Age, in seconds, from which another machine's unfinished directory counts as abandoned.
ABANDONED_AFTER = 24 * 3600
COLUMN, COLUMN_NAMES = "column.", "column_names"


def cached_arrays(
    places: Sequence[Path],
    build: Callable[[Path], Mapping[str, np.ndarray]],
    provenance: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Open the first cache that exists, else build one in the first place that can be written.

    Args:
      places: directories the cache may be in, best first. Their names must tell contents apart: an
        existing one is not compared with `provenance`.
      build: computes the arrays by name. What is too large for memory it writes itself, as
        NAME.npy, into the directory it is given (`RowWriter`).
      provenance: where the arrays come from, written beside them as JSON.

    Returns:
      The arrays by name, memory-mapped read-only.

    Raises:
      OSError: if no place can be written.
    """
    for place in filter(_is_whole, places):
        try:
            return _open(place)
        except SemanticFLError as error:
            print(f"{error}; the cache is made anew", file=sys.stderr)
            shutil.rmtree(place, ignore_errors=True)
    place, partial, lock = _start(places)
    print(f"Writing a cache to {place} (once)", file=sys.stderr)
    try:
        for name, array in build(partial).items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        names = sorted(path.name.removesuffix(".npy") for path in partial.glob("*.npy"))
        described = {"arrays": names, **provenance}
        (partial / PROVENANCE).write_text(json.dumps(described, indent=2) + "\n")
        try:
            os.rename(partial, place)
        except OSError:
            # Another writer was first; anything else at that place is an error.
            if not _is_whole(place):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)
    return _open(place)


def is_cached(places: Sequence[Path]) -> bool:
    """Return whether `cached_arrays` of these places would open a cache and build nothing."""
    return any(map(_is_whole, places))


def _is_whole(place: Path) -> bool:
    return (place / PROVENANCE).is_file()


class RowWriter:
    """Appends rows to a `.npy` file; their number is known only at the end, their shape at first.

    Written front to back rather than through a memory map, so that a full disk is an `OSError`
    and not the end of the process. Use as a context manager.

    Attributes:
      shape: of the rows; None before the first.
      rows: number of rows so far.
    """

    def __init__(self, path: Path, dtype: np.dtype | type = np.uint8):
        self.shape: tuple[int, ...] | None = None
        self.rows = 0
        self._path, self._dtype = path, np.dtype(dtype)

    def append(self, row: np.ndarray) -> None:
        """Write one more row, of the first one's shape and of the file's type."""
        if self.shape is None:
            self.shape = row.shape
            self._header()
        if row.shape != self.shape or row.dtype != self._dtype:
            raise SemanticFLError(f"rows are {self._dtype}{self.shape}, got {row.dtype}{row.shape}")
        self._file.write(np.ascontiguousarray(row).data)
        self.rows += 1

    def _header(self) -> None:
        # NumPy leaves room for the first axis to grow: the header's length stays the same.
        shape = (self.rows, *(self.shape or ()))
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> RowWriter:
        self._file = open(self._path, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.seek(0)
            self._header()


def put_columns(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays of columns, so named that they can lie among others, as files too."""
    if not columns:
        return {}
    arrays = {f"{COLUMN}{number}": values for number, values in enumerate(columns.values())}
    return {COLUMN_NAMES: np.array(list(columns), str), **arrays}


def take_columns(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the other arrays, and under "columns" a dict of what `put_columns` put among them."""
    # Caches of version 0.1 have the columns' own names in place of numbers.
    names = {f"{COLUMN}{n}": str(name) for n, name in enumerate(arrays.get(COLUMN_NAMES, ()))}
    columns = {
        names.get(key, key.removeprefix(COLUMN)): np.asarray(values)
        for key, values in arrays.items()
        if key.startswith(COLUMN)
    }
    others = {
        key: values
        for key, values in arrays.items()
        if not key.startswith(COLUMN) and key != COLUMN_NAMES
    }
    return {**others, "columns": columns}


def _open(place: Path) -> dict[str, np.ndarray]:
    """Open a cache; raise `SemanticFLError` if a file of it is damaged or missing."""
    names = files.read_json_object(place / PROVENANCE).get("arrays")
    if not isinstance(names, list):
        raise SemanticFLError(f"{place / PROVENANCE} lists no arrays")
    for name in names:
        if not (place / f"{name}.npy").is_file():
            raise SemanticFLError(f"{place / f'{name}.npy'} is missing")
    return {name: read_npy(place / f"{name}.npy", mmap_mode="r") for name in names}


def _start(places: Sequence[Path]) -> tuple[Path, Path, int]:
    """Return the first place that can be written, a fresh directory beside it, and its lock."""
    refusals = []
    machine = re.sub(r"\W", "_", platform.node())
    for place in places:
        stem = f".{place.name}-{machine}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # A directory marked read-only is respected even where the user (root) could write.
            if not place.parent.stat().st_mode & 0o222:
                raise PermissionError(f"{place.parent} is read-only")
            # Not tempfile's mkdtemp: others who share the data set may read the cache.
            fresh = place.with_name(f"{stem}-{uuid.uuid4().hex}")
            fresh.mkdir()
        except OSError as error:
            refusals.append(str(error))
            continue
        lock = os.open(fresh, os.O_RDONLY)
        _try_lock(lock)
        # Only now is it seen by others, who take what is not locked for abandoned.
        partial = fresh.with_name(f"{fresh.name}.partial")
        fresh.rename(partial)
        for other in place.parent.glob(f".{place.name}-*.partial"):
            if other != partial and _abandoned(other, other.name.startswith(f"{stem}-")):
                shutil.rmtree(other, ignore_errors=True)
        return place, partial, lock
    raise OSError(
        f"no place for a cache of decoded images: {'; '.join(refusals)} "
        "(set XDG_CACHE_HOME to a directory that can be written)"
    )


def _try_lock(handle: int) -> bool | None:
    """Lock an open directory while this process lives; None where that cannot be done."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _abandoned(partial: Path, of_this_machine: bool) -> bool:
    """Return whether nobody writes there any more; other machines' locks may not be seen."""
    try:
        old = time.time() - partial.stat().st_mtime > ABANDONED_AFTER
        if not of_this_machine:
            return old
        handle = os.open(partial, os.O_RDONLY)
    except FileNotFoundError:
        return False
    free = _try_lock(handle)
    os.close(handle)
    return old if free is None else free
