"""Loggers: callbacks that send a run's figures to an experiment tracker."""

from __future__ import annotations

from pathlib import Path

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import LoggerContext
from semanticfl_jax.devices import processes
from semanticfl_jax.simulation.callbacks import Callback


def make_loggers(config: ExperimentConfig, workdir: Path | None) -> list[Callback]:
    """Return the loggers that `runtime.loggers` names; none in processes that write nothing.

    Raises:
      MissingDependencyError: for a logger whose library is not installed, before anything runs.
    """
    if not processes.is_main():
        return []
    context, settings = LoggerContext(config, workdir), config.runtime.settings
    chosen = config.runtime.chosen()
    return [entry.build(settings.get(name), context, Callback) for name, entry in chosen.items()]
