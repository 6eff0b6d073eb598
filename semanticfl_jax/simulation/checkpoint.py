"""Checkpoints of the server state, by Orbax: the run goes on exactly where it was saved."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from semanticfl_jax.types import PyTree


class Checkpoints:
    """The checkpoints of one run, in a directory of their own; the newest two are kept.

    A checkpoint appears only once it is whole, so a run killed while saving resumes from the one
    before. Use as a context manager: leaving it waits for what is still being written.
    """

    def __init__(self, directory: str | Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is still being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """The round of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, rounds_done: int, state: PyTree) -> None:
        """Saves `state` as it is now; writing goes on in the background."""
        self._manager.save(rounds_done, args=ocp.args.StandardSave(state))

    def restore(self, shapes: PyTree) -> PyTree:
        """The newest checkpoint, with structure, types and shardings as `shapes_of` gives them."""
        return self._manager.restore(self.latest(), args=ocp.args.StandardRestore(shapes))

    def restore_as_saved(self) -> PyTree:
        """Return the newest checkpoint as nested dicts of arrays on the host."""
        return self._manager.restore(self.latest(), args=ocp.args.StandardRestore())


def shapes_of(state: PyTree) -> PyTree:
    """What is needed to restore a state like this one, which may then be freed."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
