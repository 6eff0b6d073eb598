"""Checkpoints of the server state, by Orbax: the run goes on exactly where it was saved."""

import itertools
import sys
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from semanticfl_jax.devices import processes
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.federated.kept_rows import OwnRows
from semanticfl_jax.types import PyTree, Say
from semanticfl_jax.weight_files import named_leaves


class Checkpoints:
    """The checkpoints of one run, in a directory of their own; the newest two are kept.

    A checkpoint appears only once it is whole, so a run killed while saving resumes from the one
    before. Use as a context manager: leaving it waits for what is still being written.
    """

    def __init__(self, directory: str | Path):
        _quieten_leftovers()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
        self._directory = Path(directory)
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(),
            options=options,
            item_handlers=ocp.StandardCheckpointHandler(),  # for the form of what was saved
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is still being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Return the round of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, rounds_done: int, state: PyTree) -> None:
        """Save `state` as it is now; writing goes on in the background.

        States of clients that each process keeps for itself are not in it: each can roll them back
        to every checkpoint.
        """
        rows = _own_rows(state)
        if rows is not None:
            rows.save(rounds_done)  # first: a checkpoint that is whole must have them
            state = state._replace(clients=())
        self._manager.save(rounds_done, args=ocp.args.StandardSave(state))
        if rows is not None:
            # The ones before are whole: `save` has waited for them. This one may not be yet.
            whole = set(self._manager.all_steps()) - {rounds_done}
            rows.forget(min(whole, default=0))

    def begin_anew(self, state: PyTree) -> None:
        """Undo what rounds without a checkpoint, of a run that was killed, left on a disk."""
        rows = _own_rows(state)
        if rows is not None:
            rows.roll_back(0)

    def _restore(self, step: int, shapes: PyTree) -> PyTree:
        rows = _own_rows(shapes)
        if rows is not None:
            shapes = shapes._replace(clients=())
        state = self._manager.restore(step, args=ocp.args.StandardRestore(shapes))
        if rows is not None:
            rows.roll_back(step)
            state = state._replace(clients=rows)
        return state

    def _check_form(self, step: int, shapes: PyTree) -> None:
        """Raise `ConfigError` if a checkpoint is of a state of another form than `shapes`.

        One whose form cannot be read passes: that it is damaged shows when it is restored.
        """
        try:
            saved = _forms(self._manager.item_metadata(step).tree)
        except Exception:  # as many kinds as there are files
            return
        if _own_rows(shapes) is not None:
            shapes = shapes._replace(clients=())
        wanted = _forms(shapes)
        for where in {**saved, **wanted}:
            was, now = (forms.get(where, "not there") for forms in (saved, wanted))
            if was != now:
                raise ConfigError(
                    f"the checkpoints in {self._directory} are of a state of another form: {where} "
                    f"was {was} and would be {now}; go on with the model and the algorithm that "
                    "the run began with, or set it aside with --overwrite (overwrite=True)"
                )

    def restore_newest(
        self, shapes: PyTree, recorded: int, aside: Path, say: Say
    ) -> tuple[int, PyTree]:
        """Return the newest checkpoint that can be gone on from, and its round.

        Newer ones are moved to the folder `aside`, so that their rounds can be saved again.

        Args:
          shapes: structure, types and shardings, of `shapes_of`.
          recorded: rounds whose rows are there; a checkpoint after more of them is not used.
          aside: folder for damaged ones; made if needed.
          say: is told of them.

        Raises:
          ConfigError: if they are of a state of another form.
          SemanticFLError: if none can be read; all stay where they are.
        """
        damaged: list[int] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            self._check_form(step, shapes)
            failure: Exception | None = None
            try:
                if step > recorded:
                    raise SemanticFLError(f"metrics.jsonl has the rows of {recorded} rounds only")
                state = self._restore(step, shapes)
            except Exception as error:  # as many kinds as there are files
                failure = error
            if not processes.anywhere(failure is not None):
                break
            damaged.append(step)
            reason = f": {first_line(failure)}" if failure is not None else ""
            say(f"warning: checkpoint {self._directory / str(step)} cannot be used{reason}")
        else:
            raise SemanticFLError(
                f"none of the checkpoints in {self._directory} can be used (the newest: "
                f"{first_line(failure) if failure else 'see the other processes'}); --overwrite "
                "sets the run aside and begins anew"
            )
        if damaged and processes.is_main():
            aside.mkdir(exist_ok=True)
            for number in damaged:
                (self._directory / str(number)).replace(_unused(aside, number))
            say(f"the checkpoint of round {step} is used; what could not be is in {aside}")
        if damaged:
            self._manager.reload()
        return step, state

    def restore_as_saved(self) -> PyTree:
        """Return the newest checkpoint as nested dicts of arrays on the host."""
        return self._manager.restore(self.latest(), args=ocp.args.StandardRestore())


def _own_rows(state: PyTree) -> OwnRows | None:
    """Return the clients' states, if each process keeps its own."""
    rows = getattr(state, "clients", None)
    return rows if isinstance(rows, OwnRows) else None


def _forms(tree: PyTree) -> dict[str, str]:
    """Return types and shapes of a tree's arrays by where they are."""
    return {
        where: f"{leaf.dtype}{list(leaf.shape)}"
        for where, leaf in named_leaves(tree).items()
        if hasattr(leaf, "shape")  # what stands for nothing has none
    }


def first_line(error: BaseException) -> str:
    """Return the kind of an error and the beginning of its message, in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:160]}{'...' if len(message) > 160 else ''}"


_quiet = False


def _quieten_leftovers() -> None:
    """Leave out what reads and writes of a checkpoint still say after the first of them failed.

    Orbax reads or writes all arrays at once and is done when one fails, as on a full disk; each of
    the others would print a traceback of its own. All else is said as before.
    """
    global _quiet
    if _quiet:
        return
    _quiet = True
    of_errors, of_ignored = sys.excepthook, sys.unraisablehook

    def on_error(kind: Any, error: BaseException, trace: Any) -> None:
        if not _is_leftover(error):
            of_errors(kind, error, trace)

    def on_ignored(args: Any) -> None:
        code = getattr(args.object, "cr_code", None)  # of a coroutine
        if not _is_leftover(args.exc_value) and "orbax" not in getattr(code, "co_filename", ""):
            of_ignored(args)

    sys.excepthook, sys.unraisablehook = on_error, on_ignored


def _is_leftover(error: BaseException | None) -> bool:
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def _unused(folder: Path, number: int) -> Path:
    names = itertools.chain([str(number)], (f"{number}-{copy}" for copy in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def shapes_of(state: PyTree) -> PyTree:
    """Return what is needed to restore a state like this one, which may then be freed."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
