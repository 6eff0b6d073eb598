"""NumPy's files, read so that one that is damaged is named, whatever NumPy makes of it."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: What NumPy and zipfile raise of a file that is cut off, overwritten or another kind of file.
DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz` file by name.

    Raises:
      OSError: if it cannot be opened.
      SemanticFLError: if it is damaged, or no such file.
    """
    with open(path, "rb") as file:
        try:
            if not zipfile.is_zipfile(file):
                empty = os.fstat(file.fileno()).st_size == 0
                raise SemanticFLError("it is empty" if empty else "it is cut off, or no .npz file")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (*DAMAGE, OSError) as error:
            raise SemanticFLError(f"{path} is damaged: {error}") from error


def kept_npz(path: Path, key: str | None = None) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file that can be made anew; None where it is missing or damaged.

    Args:
      path: of the file.
      key: text that its array `key` must hold, else it is as if missing; None: any.
    """
    try:
        found = read_npz(path)
    except (SemanticFLError, FileNotFoundError):
        return None
    return found if key is None or ("key" in found and str(found["key"]) == key) else None


def read_npy(path: str | os.PathLike, mmap_mode: Any = None) -> np.ndarray:
    """Return the array of a `.npy` file.

    Raises:
      OSError: if it cannot be opened.
      SemanticFLError: if it is damaged, or no such file.
    """
    with open(path, "rb"):
        pass
    try:
        found = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        found.close()
        raise SemanticFLError("it is an .npz file")
    except (*DAMAGE, OSError) as error:
        raise SemanticFLError(f"{path} is no whole .npy file: {error}") from error
