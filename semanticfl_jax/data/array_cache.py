"""Memory-mapped arrays on disk, computed once; an interruption never leaves half a cache.

A cache is a directory of `.npy` files and `provenance.json`. It is written under another name
beside its place and renamed, so that it is either there and whole or not there; of several writers
at once, the first one's is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PROVENANCE = "provenance.json"
#: Age, in seconds, from which another writer's unfinished directory counts as abandoned.
ABANDONED_AFTER = 24 * 3600


def user_cache_dir() -> Path:
    """`$XDG_CACHE_HOME/semanticfl_jax`, by default under `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semanticfl_jax"


def cached_arrays(
    places: Sequence[Path],
    build: Callable[[], Mapping[str, np.ndarray]],
    provenance: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Opens the first cache that exists, else builds one in the first place that can be written.

    Args:
      places: directories the cache may be in, best first. Their names must tell contents apart: an
        existing one is not compared with `provenance`.
      build: computes the arrays by name.
      provenance: where the arrays come from, written beside them as JSON.

    Returns:
      The arrays by name, memory-mapped read-only.

    Raises:
      OSError: if no place can be written.
    """
    for place in places:
        if (place / PROVENANCE).is_file():
            return _open(place)
    place, partial = _start(places)
    print(f"Writing a cache to {place} (once)", file=sys.stderr)
    try:
        arrays = build()
        for name, array in arrays.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
        described = {"arrays": sorted(arrays), **provenance}
        (partial / PROVENANCE).write_text(json.dumps(described, indent=2) + "\n")
        try:
            os.rename(partial, place)
        except OSError:
            # Another writer was first; anything else at that place is an error.
            if not (place / PROVENANCE).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _open(place)


def _open(place: Path) -> dict[str, np.ndarray]:
    names = json.loads((place / PROVENANCE).read_text())["arrays"]
    return {
        name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
    }


def _start(places: Sequence[Path]) -> tuple[Path, Path]:
    """The first place that can be written, and a fresh directory beside it."""
    refusals = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # A directory marked read-only is respected even where the user (root) could write.
            if not place.parent.stat().st_mode & 0o222:
                raise PermissionError(f"{place.parent} is read-only")
            # Not tempfile's mkdtemp: others who share the data set may read the cache.
            partial = place.with_name(f".{place.name}-{uuid.uuid4().hex}.partial")
            partial.mkdir()
        except OSError as error:
            refusals.append(str(error))
            continue
        for other in place.parent.glob(f".{place.name}-*.partial"):
            if time.time() - other.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(other, ignore_errors=True)
        return place, partial
    raise OSError(
        f"no place for a cache of decoded images: {'; '.join(refusals)} "
        "(set XDG_CACHE_HOME to a directory that can be written)"
    )
