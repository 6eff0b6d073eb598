"""TensorBoard: event files in the run's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from semanticfl_jax.config import to_dict
from semanticfl_jax.config.loggers import TensorBoardConfig
from semanticfl_jax.contexts import LoggerContext
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.simulation.loggers.base import Logger

if TYPE_CHECKING:
    from semanticfl_jax.simulation.experiment import Simulation


class TensorBoard(Logger):
    """Writes a scalar a figure, with the round as step; the configuration as text.

    Rounds that a run repeats after it was killed hide those of before.

    Args:
      directory: of the event files.
    """

    def __init__(self, directory: Path):
        super().__init__("tensorboard")
        with optional_imports("tensorboard", "runtime.loggers=tensorboard"):
            from tensorboardX import SummaryWriter
        self._directory, self._open = directory, SummaryWriter
        self._writer = None

    def start(self, simulation: Simulation) -> None:
        """Open the event file."""
        again = simulation.round + 1 if simulation.round else None
        self._writer = self._open(str(self._directory), purge_step=again, flush_secs=10)
        text = json.dumps(to_dict(simulation.config), indent=2)
        self._writer.add_text("config", f"```json\n{text}\n```", simulation.round)

    def log(self, round: int, values: dict[str, float]) -> None:
        """Write the scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, round)

    def finish(self, summary: dict[str, float] | None) -> None:
        """Close the event file; the summary is in the scalars already."""
        del summary
        if self._writer is not None:
            self._writer.close()


def build(settings: TensorBoardConfig, context: LoggerContext) -> TensorBoard:
    """Return the logger; raise `ConfigError` where there is no directory for it."""
    if settings.directory is not None:
        return TensorBoard(Path(settings.directory))
    if context.workdir is None:
        raise ConfigError("runtime.tensorboard.directory must be set for a run without a workdir")
    return TensorBoard(context.workdir / "tensorboard")
