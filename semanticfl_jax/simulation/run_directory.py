"""The directory of a run under way: whose it is, the newest checkpoint, and the last state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.devices import processes
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.lock import Lock
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.checkpoint import Checkpoints, shapes_of
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.types import Say


class RunDirectory:
    """The directory of a run, locked while it trains; without one, nothing is kept.

    Args:
      path: of the directory; None: there is none.
      config: of the run.
      overwrite: whether a run that is there is set aside first.
      say: takes lines for the user.

    Attributes:
      finished: summary of the run that is there, if it is finished; None otherwise.
      checkpoints: None before `resume`, and without a directory.

    Raises:
      ConfigError: if the directory holds a run whose results are decided otherwise.
      SemanticFLError: if somebody else trains there.
    """

    def __init__(self, path: Path | None, config: ExperimentConfig, overwrite: bool, say: Say):
        self._path, self._say = path, say
        self._lock: Lock | None = None
        self.finished: dict[str, Any] | None = None
        self.checkpoints: Checkpoints | None = None
        if path is None:
            return
        with processes.main_first():
            self.finished, self._lock = files.open_run(
                path, config, overwrite, say, main=processes.is_main()
            )
        if self.finished is not None:
            say(files.finished_line(path, self.finished))

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of the finished run that is there."""
        assert self._path is not None and self.finished is not None
        return files.read_history(self._path, self.finished["rounds"], self._say)

    def resume(self, engine: Engine) -> list[dict[str, Any]]:
        """Give an engine the state of the newest checkpoint; return the rows up to it.

        Without a checkpoint there are none, and the engine keeps its state.
        """
        if self._path is None:
            return []
        self.checkpoints = Checkpoints(self._path / files.CHECKPOINTS)
        if not self.checkpoints.latest():
            self.checkpoints.begin_anew(engine.state)
            return []
        rows, shapes = read_metrics(self._path), shapes_of(engine.state)
        engine.state = None  # else it would be in memory beside the one that is restored
        engine.round, engine.state = self.checkpoints.restore_newest(
            shapes, files.rounds_in(rows), self._path / files.DAMAGED, self._say
        )
        return [row for row in rows if row["round"] <= engine.round]

    def require_own(self) -> None:
        """Raise `SemanticFLError` if another simulation of this process has the directory now."""
        if self._lock is not None and not self._lock.held:
            raise SemanticFLError(
                f"{self._path} was taken over by a later Simulation of this process"
            )

    def save(self, engine: Engine, done: int) -> None:
        """Save the state after `done` rounds, unless it is saved or another has the directory.

        It is not saved either where devices are ahead of these rounds, nor in several processes:
        all would have to save, and one may be closed by an error of its own.
        """
        alone = jax.process_count() == 1 and self._lock is not None and self._lock.held
        if self.checkpoints is None or not alone or done in (0, self.checkpoints.latest()):
            return
        if engine.round == done:
            self.checkpoints.save(done, engine.state)

    def release(self) -> None:
        """Let others have the directory."""
        if self._lock is not None:
            self._lock.release()
