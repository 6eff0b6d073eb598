"""Weights & Biases: one of its runs for each run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from semanticfl_jax.config import to_dict
from semanticfl_jax.config.loggers import WandbConfig
from semanticfl_jax.contexts import LoggerContext
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.simulation.callbacks import describe
from semanticfl_jax.simulation.loggers.base import Logger, keep_id, kept_id

if TYPE_CHECKING:
    from semanticfl_jax.simulation.experiment import Simulation


class WeightsAndBiases(Logger):
    """Logs a run's rows, configuration and summary.

    The run's number is kept in wandb.json: a run that is resumed goes on in it, and rounds that it
    repeats are not counted twice.

    Args:
      settings: of the logger.
      workdir: the run's directory, for what is kept offline; None: the current one.
    """

    def __init__(self, settings: WandbConfig, workdir: Path | None):
        super().__init__("wandb")
        with optional_imports("wandb", "runtime.loggers=wandb"):
            import wandb
        self._wandb, self._settings, self._workdir = wandb, settings, workdir
        self._run = None

    def start(self, simulation: Simulation) -> None:
        """Open the run."""
        settings, values = self._settings, to_dict(simulation.config)
        self._run = self._wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            name=describe(simulation.config),
            config=values,
            dir=self._workdir,
            id=kept_id(self._workdir, "wandb"),
            resume="allow" if settings.mode == "online" else None,
        )
        keep_id(self._workdir, "wandb", self._run.id)

    def log(self, round: int, values: dict[str, float]) -> None:
        """Send the row."""
        self._run.log({"round": round, **values}, step=round)

    def finish(self, summary: dict[str, float] | None) -> None:
        """Send the summary and close the run."""
        if self._run is None:
            return
        if summary is not None:
            self._run.summary.update(summary)
        self._run.finish(exit_code=0 if summary is not None else 1)


def build(settings: WandbConfig, context: LoggerContext) -> WeightsAndBiases:
    """Return the logger."""
    return WeightsAndBiases(settings, context.workdir)
