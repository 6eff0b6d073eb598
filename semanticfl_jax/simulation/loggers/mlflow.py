"""MLflow: one run of an experiment for each run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticfl_jax.config import to_dict
from semanticfl_jax.config.fields import flatten
from semanticfl_jax.config.loggers import MlflowConfig
from semanticfl_jax.contexts import LoggerContext
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.simulation.callbacks import describe
from semanticfl_jax.simulation.loggers.base import Logger, keep_id, kept_id

if TYPE_CHECKING:
    from semanticfl_jax.simulation.experiment import Simulation

#: As many as MLflow takes at once.
_BATCH = 100

#: Letters of a parameter's value that MLflow keeps.
_LETTERS = 500


class Mlflow(Logger):
    """Logs a run's rows as metrics, the configuration as parameters, the summary as metrics.

    The run's number is kept in mlflow.json: a run that is resumed goes on in it.

    Args:
      settings: of the logger.
      workdir: the run's directory; None if it has none.
    """

    def __init__(self, settings: MlflowConfig, workdir: Path | None):
        super().__init__("mlflow")
        with optional_imports("mlflow", "runtime.loggers=mlflow"):
            import mlflow
        self._mlflow, self._settings, self._workdir = mlflow, settings, workdir
        self._client = None
        self._number = None

    def start(self, simulation: Simulation) -> None:
        """Open the run, or the one that is resumed."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._settings.tracking_uri)
        self._number = kept_id(self._workdir, "mlflow")
        if self._number is not None:
            self._client.update_run(self._number, status="RUNNING")
            return
        values = to_dict(simulation.config)
        run = self._client.create_run(self._experiment(), run_name=describe(simulation.config))
        self._number = run.info.run_id
        keep_id(self._workdir, "mlflow", self._number)
        parameters = [
            self._mlflow.entities.Param(_key(name), str(value)[:_LETTERS])
            for name, value in flatten(values)
        ]
        for start in range(0, len(parameters), _BATCH):
            self._client.log_batch(self._number, params=parameters[start : start + _BATCH])

    def log(self, round: int, values: Mapping[str, Any]) -> None:
        """Send the row."""
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(_key(name), value, now, round)
            for name, value in values.items()
        ]
        for start in range(0, len(metrics), 5 * _BATCH):
            self._client.log_batch(self._number, metrics=metrics[start : start + 5 * _BATCH])

    def finish(self, summary: dict[str, float] | None) -> None:
        """Send the summary and close the run."""
        if self._number is None:
            return
        if summary is not None:
            self.log(int(summary["rounds"]), {f"summary/{n}": v for n, v in summary.items()})
        self._client.set_terminated(self._number, "KILLED" if summary is None else "FINISHED")

    def _experiment(self) -> str:
        """Return the number of the experiment, which is made if it is missing."""
        there = self._client.get_experiment_by_name(self._settings.experiment)
        if there is not None:
            return there.experiment_id
        return self._client.create_experiment(self._settings.experiment)


def build(settings: MlflowConfig, context: LoggerContext) -> Mlflow:
    """Return the logger."""
    return Mlflow(settings, context.workdir)


def _key(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in name)
