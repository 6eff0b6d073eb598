"""Callbacks of a run: metrics file, progress, checkpoints, summary, plots, and one's own.

A callback hears of the start, every round, every evaluation and the end; the project's own outputs
are callbacks themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semanticfl_jax.config import ExperimentConfig, to_dict
from semanticfl_jax.devices import processes
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.files import write_json
from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.labels import method_label
from semanticfl_jax.reporting.plots.accuracy_maps import plot_accuracy_maps
from semanticfl_jax.reporting.plots.client_tests import plot_client_tests
from semanticfl_jax.reporting.plots.curves import plot_curves
from semanticfl_jax.reporting.plots.drawing import attempt
from semanticfl_jax.reporting.writers.metrics import MetricsWriter
from semanticfl_jax.reporting.writers.progress import RoundProgress
from semanticfl_jax.simulation import workdir
from semanticfl_jax.simulation.checkpoint import Checkpoints
from semanticfl_jax.types import Say

if TYPE_CHECKING:
    from semanticfl_jax.simulation.experiment import Simulation


@dataclasses.dataclass(frozen=True)
class Step:
    """A round that is done.

    Attributes:
      round: its number, from 1.
      metrics: its row: `train_loss`, `seconds`, `bytes_up`, ... and, where it was evaluated,
        `test_accuracy` and more; of other tasks, their figures.
      state: the server's state where a checkpoint is due; None elsewhere.
      clients: int32 [m], ids of the clients that took part and did not drop out.
    """

    round: int
    metrics: dict[str, Any]
    state: ServerState | None = None
    clients: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.int32), compare=False
    )

    @property
    def evaluated(self) -> bool:
        """Whether the model was tested after this round."""
        return "test_loss" in self.metrics  # every task has one


class Callback:
    """Base of callbacks: override what you want to hear of; the rest does nothing.

    Callbacks are called in the process that writes files, in the order in which they are listed.
    What they put into `step.metrics` is written to metrics.jsonl, logged, and in the history.
    `simulation.stop()` ends the run after the round under way.

        class Best(sfl.Callback):
            accuracy = 0.0

            def on_evaluation(self, simulation, step):
                self.accuracy = max(self.accuracy, step.metrics["test_accuracy"])

        best = Best()
        sfl.run(config, callbacks=[best])
    """

    def on_start(self, simulation: Simulation) -> None:
        """Act once, before the first round.

        Args:
          simulation: ready to train; a resumed one has `simulation.round` rounds behind it.
        """

    def on_round(self, simulation: Simulation, step: Step) -> None:
        """Act after every round.

        A callback that has this method gets the rounds one by one, so that the state is the
        round's. One that has `on_evaluation` alone leaves rounds without a test in blocks.

        Args:
          simulation: `simulation.state` is the server's state after the round.
          step: the round.
        """

    def on_evaluation(self, simulation: Simulation, step: Step) -> None:
        """Act after a round whose model was tested, once `on_round` has been called.

        Args:
          simulation: as of `on_round`.
          step: the round; its metrics have the task's own, such as `test_accuracy`.
        """

    def on_end(self, simulation: Simulation) -> None:
        """Act once, after the last round of the run.

        Args:
          simulation: `simulation.result()` is the result.
        """

    def close(self) -> None:
        """Close what is open; called once, when the run ends, is stopped, or fails."""


def hear_rounds(callbacks: Sequence[Callback]) -> bool:
    """Return whether any callback hears of every round, rather than of evaluations alone."""
    heard = [getattr(each.on_round, "__func__", each.on_round) for each in callbacks]
    return any(method is not Callback.on_round for method in heard)


class WriteMetrics(Callback):
    """Append each round's row to metrics.jsonl."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._writer: MetricsWriter | None = None

    def on_start(self, simulation: Simulation) -> None:
        """Open the file, and keep the rows of the rounds that were done before."""
        self._writer = MetricsWriter(self._directory, simulation.history)

    def on_round(self, simulation: Simulation, step: Step) -> None:
        """Write the row."""
        self._writer.write(step.metrics)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


class ShowProgress(Callback):
    """Show a bar on a terminal or in a notebook, and sparse lines elsewhere."""

    def __init__(self) -> None:
        self._progress: RoundProgress | None = None
        self._metric = ""

    def on_start(self, simulation: Simulation) -> None:
        """Open the bar."""
        self._metric = simulation.parts.task.headline
        rounds, done = simulation.rounds, simulation.round
        self._progress = RoundProgress(rounds, done, metric=self._metric)

    def on_round(self, simulation: Simulation, step: Step) -> None:
        """Move the bar on."""
        row = step.metrics
        self._progress.update(
            step.round, row.get(self._metric), row["images_per_second"], row.get("epsilon")
        )

    def say(self, line: str) -> None:
        """Write a line for the user, above the bar."""
        print(line) if self._progress is None else self._progress.say(line)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._progress is not None:
            self._progress.close()


class SaveCheckpoints(Callback):
    """Save the state whenever a checkpoint is due, so that the run can be resumed.

    It runs in every process: each saves what its devices hold.
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def on_round(self, simulation: Simulation, step: Step) -> None:
        """Save the state, if it is due."""
        if step.state is not None:
            self._checkpoints.save(step.round, step.state)

    def close(self) -> None:
        """Wait for what is still being written."""
        self._checkpoints.close()


class WriteSummary(Callback):
    """Write summary.json, the trained model and clients' figures, before anything is drawn."""

    def __init__(self, directory: Path):
        self._directory = directory

    def on_end(self, simulation: Simulation) -> None:
        """Write them."""
        result = simulation.result()
        result.export(self._directory / workdir.MODEL)
        if simulation.client_tests is not None:
            path = self._directory / workdir.CLIENT_TESTS
            client_tests.save(path, simulation.client_tests, simulation.metric)
        write_json(self._directory / workdir.SUMMARY, result.summary)


class DrawPlots(Callback):
    """Draw curves, accuracy maps of classes, and the partition; a failure is a warning."""

    def __init__(self, directory: Path, say: Say):
        self._plots, self._say = directory / workdir.PLOTS, say

    def on_end(self, simulation: Simulation) -> None:
        """Draw everything."""
        federation, rows, note = simulation.federation, simulation.history, simulation.note
        names, counts = federation.dataset.class_names, federation.label_counts()
        metric, tests = simulation.metric, simulation.client_tests
        about = describe(simulation.config)
        drawings = {
            "curves.png": lambda path: plot_curves(rows, path, note, metric=metric, about=about),
            "partition.png": lambda path: federation.draw(path.parent),
        }
        if federation.dataset.has_classes and any("class_accuracy" in row for row in rows):
            drawings["accuracy_maps.png"] = lambda path: plot_accuracy_maps(
                rows, names, counts, path, note, about=about
            )
        if tests is not None:
            drawings["client_tests.png"] = lambda path: plot_client_tests(
                tests, path, note, metric=metric, about=about
            )
        for name, draw in drawings.items():
            path = self._plots / name
            attempt(path, functools.partial(draw, path), self._say)


def describe(config: ExperimentConfig) -> str:
    """Return what a run is, in a line: its method, data set and seed."""
    return f"{method_label(to_dict(config))}, {config.dataset}, seed {config.seed}"


class Callbacks:
    """Several callbacks as one."""

    def __init__(self, members: list[Callback]):
        self._members = members
        self._open = False

    @classmethod
    def of_run(
        cls,
        bar: ShowProgress | None,
        loggers: Sequence[Callback],
        given: Sequence[Callback],
        directory: Path | None,
        checkpoints: Checkpoints | None,
        say: Say,
    ) -> Callbacks:
        """Return a run's own callbacks and those `given`, in the order in which they are called.

        Args:
          bar: None for none.
          loggers: of the configuration.
          given: by the user.
          directory: of the run; None writes nothing.
          checkpoints: of the run; None if nothing is written.
          say: takes lines for the user.
        """
        shown = list(loggers) if bar is None else [bar, *loggers]
        if directory is None or checkpoints is None:
            return cls([*given, *shown])
        return cls(
            [
                # First: what they put into a round's metrics is written and logged with it.
                *given,
                WriteMetrics(directory),
                *shown,
                # After the row: a run that is resumed from here keeps the rows up to here.
                SaveCheckpoints(checkpoints),
                WriteSummary(directory),
                DrawPlots(directory, say),
            ]
        )

    def start(self, simulation: Simulation) -> None:
        """Tell all that the run begins; once."""
        if not self._open:
            self._open = True
            for each in self._here():
                each.on_start(simulation)

    def round(self, simulation: Simulation, step: Step) -> None:
        """Tell all of a round, and of its evaluation."""
        for each in self._here():
            each.on_round(simulation, step)
            if step.evaluated:
                each.on_evaluation(simulation, step)
            simulation.require_open()

    def end(self, simulation: Simulation) -> None:
        """Tell all that the run is over."""
        for each in self._here():
            each.on_end(simulation)

    def close(self) -> None:
        """Close all, whatever any of them raises."""
        with contextlib.ExitStack() as stack:
            for each in reversed(self._here()):
                stack.callback(each.close)

    def _here(self) -> list[Callback]:
        """Return the callbacks of this process."""
        if processes.is_main():
            return self._members
        return [each for each in self._members if isinstance(each, SaveCheckpoints)]
