"""The clients' states in memory-mapped files: a row a client, read and written by the cohort.

Only the rows of a cohort are in memory. Files are sparse: what starts as zeros takes no space until
a client has taken part. A checkpoint does not copy them. Instead the rows that a round writes over
are kept first, in a file of that round, and a run that is resumed after an earlier round puts them
back, the latest first:

    states/0.npy, 1.npy, ...     the arrays, [num_clients, ...]
    states/undo/ROUND.npz        ids, and what their rows were before that round

These files are needed back to the oldest checkpoint that is kept, and then deleted. That of a
checkpoint's own round is kept with it, and tells that the arrays have come so far.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from semanticfl_jax import files
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree

# Bytes of equal rows written at a time.
_BLOCK = 64_000_000


@jax.tree_util.register_static
class DiskRows:
    """The states of all clients on a disk; for JAX's functions of trees it has no leaves."""

    def __init__(self, one: PyTree, num_clients: int, directory: Path | None):
        """Open the files of a run, or make them.

        Args:
          one: the state of a client before its first round, on the host.
          num_clients: N.
          directory: of the run; None: files are temporary, and rounds cannot be undone.

        Raises:
          SemanticFLError: if the disk has less room than all rows would take.
        """
        self._temporary = None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory()
            directory = Path(self._temporary.name)
        self._undo = None if self._temporary else directory / "undo"
        leaves, self._form = jax.tree.flatten(one)
        leaves = [np.asarray(leaf) for leaf in leaves]
        self.row_bytes = sum(leaf.nbytes for leaf in leaves)
        self.num_clients = num_clients
        directory.mkdir(parents=True, exist_ok=True)
        total, free = self.row_bytes * num_clients, shutil.disk_usage(directory).free
        if total > free and not (directory / "0.npy").exists():
            raise SemanticFLError(
                f"the clients' states may take {total / 1e9:.1f} GB in {directory}, and "
                f"{free / 1e9:.1f} GB are free: use fewer clients, a smaller model or another disk"
            )
        self._arrays = [
            _open(directory / f"{index}.npy", leaf, num_clients)
            for index, leaf in enumerate(leaves)
        ]

    def take(self, ids: np.ndarray) -> PyTree:
        """Return the rows of some clients, int [count], in memory."""
        return jax.tree.unflatten(self._form, [np.asarray(x[ids]) for x in self._arrays])

    def put(self, ids: np.ndarray, rows: PyTree, number: int) -> None:
        """Write the rows of different clients.

        Args:
          ids: int [count].
          rows: arrays [count, ...].
          number: of the round that wrote them, from 1.
        """
        if self._undo is not None:
            before = {f"row_{index}": x[ids] for index, x in enumerate(self._arrays)}
            self._undo.mkdir(exist_ok=True)
            path = self._undo / f"{number}.npz"
            files.write(path, lambda file: np.savez(file, ids=ids, **before))
        for array, row in zip(self._arrays, jax.tree.leaves(rows), strict=True):
            array[ids] = row

    def save(self, number: int) -> None:
        """Have the disk hold the rows as they are after round `number`."""
        del number
        self.flush()

    def roll_back(self, number: int) -> None:
        """Restore all rows as they were after round `number`.

        Raises:
          SemanticFLError: if the files are not those of a run that has come so far.
        """
        rounds = self._rounds()
        undone = sorted((each for each in rounds if each > number), reverse=True)
        if (number and number not in rounds) or (undone and undone[-1] != number + 1):
            raise SemanticFLError(
                f"the clients' states are not those of a run after round {number}: files are "
                f"missing in {self._undo}"
            )
        for later in undone:
            with np.load(self._file(later), allow_pickle=False) as kept:
                for index, array in enumerate(self._arrays):
                    array[kept["ids"]] = kept[f"row_{index}"]
            self.flush()
            self._file(later).unlink()

    def forget(self, number: int) -> None:
        """Drop what is needed to go back beyond round `number`."""
        for earlier in self._rounds():
            if earlier < number:
                self._file(earlier).unlink()

    def flush(self) -> None:
        """Have the disk hold what was written."""
        for array in self._arrays:
            array.flush()

    def _rounds(self) -> list[int]:
        """Return the rounds that can be undone."""
        if self._undo is None or not self._undo.is_dir():
            return []
        return [int(path.stem) for path in self._undo.glob("*.npz") if path.stem.isdecimal()]

    def _file(self, number: int) -> Path:
        assert self._undo is not None
        return self._undo / f"{number}.npz"


def _open(path: Path, one: np.ndarray, num_clients: int) -> np.memmap:
    """Open an array [num_clients, ...] whose rows begin as `one`; it appears once it is whole."""
    shape = (num_clients, *one.shape)
    if path.exists():
        array = np.lib.format.open_memmap(path, "r+")
        if array.shape != shape or array.dtype != one.dtype:
            raise SemanticFLError(
                f"{path} holds {array.dtype} {array.shape} and not {one.dtype} {shape}: it belongs "
                "to another run; --overwrite sets it aside"
            )
        return array
    beside = path.with_suffix(".tmp")
    array = np.lib.format.open_memmap(beside, "w+", one.dtype, shape)
    if one.tobytes().strip(b"\0"):  # else nothing is written, and the file takes no space
        step = max(1, _BLOCK // max(1, one.nbytes))
        for begin in range(0, num_clients, step):
            array[begin : begin + step] = one
    array.flush()
    beside.replace(path)
    return array
