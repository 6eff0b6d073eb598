"""The states of a process's share of the clients in its memory, in a run of several processes.

Every process could keep the states of all clients. The rows would travel half as far, but the
states would take as many times the memory, and memory is why they are not on the devices. So each
process keeps its share, as with `DiskRows`, and `KeptRows` brings rows to whoever trains them.

Nor are the shares put together for a checkpoint, which no machine might have the memory for. Each
process writes its own, all rows, before the checkpoint itself is written: where there is a whole
checkpoint, there are whole files.

    states/ROUND.npz             all rows of the process, as they were after that round

Files are deleted with their checkpoint. Nothing is copied for them, but training waits until they
are written.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from semanticfl_jax import files
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


@jax.tree_util.register_static
class HostRows:
    """The states of a process's clients in its memory; for JAX's functions of trees no leaves."""

    def __init__(self, one: PyTree, num_clients: int, directory: Path | None):
        """Make the rows.

        Args:
          one: the state of a client before its first round, on the host.
          num_clients: of this process.
          directory: of this process, for checkpoints; None: there are none.
        """
        leaves, self._form = jax.tree.flatten(one)
        self._arrays = [np.repeat(np.asarray(leaf)[None], num_clients, axis=0) for leaf in leaves]
        self._directory = directory
        self.row_bytes = sum(np.asarray(leaf).nbytes for leaf in leaves)

    def take(self, ids: np.ndarray) -> PyTree:
        """Return the rows of some clients, int [count]."""
        return jax.tree.unflatten(self._form, [x[ids] for x in self._arrays])

    def put(self, ids: np.ndarray, rows: PyTree, number: int) -> None:
        """Replace the rows of different clients.

        Args:
          ids: int [count].
          rows: arrays [count, ...].
          number: of the round, which is not needed here.
        """
        del number
        for array, row in zip(self._arrays, jax.tree.leaves(rows), strict=True):
            array[ids] = row

    def save(self, number: int) -> None:
        """Write all rows as they are after round `number`."""
        files.write(self._file(number), lambda file: np.savez(file, **self._named()))

    def roll_back(self, number: int) -> None:
        """Read all rows as they were after round `number`; before round 1, they are new.

        Raises:
          SemanticFLError: if they were not written.
        """
        if number == 0:
            return
        path = self._file(number)
        if not path.exists():
            raise SemanticFLError(f"the clients' states are not there: {path} is missing")
        with np.load(path, allow_pickle=False) as saved:
            for name, array in self._named().items():
                array[...] = saved[name]

    def forget(self, number: int) -> None:
        """Drop what is needed to go back beyond round `number`."""
        for earlier in self._file(number).parent.glob("*.npz"):
            if earlier.stem.isdecimal() and int(earlier.stem) < number:
                earlier.unlink()

    def _named(self) -> dict[str, np.ndarray]:
        return {f"row_{index}": array for index, array in enumerate(self._arrays)}

    def _file(self, number: int) -> Path:
        assert self._directory is not None
        return self._directory / f"{number}.npz"
