"""One experiment, from images to report.

image source -> partition -> corruption -> anchors, student -> data on devices -> rounds -> metrics
-> report
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices import processes
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.start import start_jax
from semanticfl_jax.devices.versions import code_commit, versions
from semanticfl_jax.errors import DivergedError, SemanticFLError
from semanticfl_jax.federated.client_tests import ClientFigures
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.files import to_json_values, write_json
from semanticfl_jax.lock import Lock
from semanticfl_jax.paths import local_path
from semanticfl_jax.privacy.report import report
from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.client_accuracy import evaluated, final_figures
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.writers.metrics import METRICS_FILE, read_metrics, summarize
from semanticfl_jax.semantics.anchor_images import NOT_PRIVATE
from semanticfl_jax.simulation import callbacks as following
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.arguments import check_kinds
from semanticfl_jax.simulation.callbacks import Callback, Callbacks, Step
from semanticfl_jax.simulation.checkpoint import Checkpoints, shapes_of
from semanticfl_jax.simulation.divergence import Divergence, summary_of
from semanticfl_jax.simulation.export import TrainedModel, describe_model, load_model
from semanticfl_jax.simulation.interrupt import Stopped, stop_between_rounds
from semanticfl_jax.simulation.loggers import make_loggers
from semanticfl_jax.simulation.pipeline import FinishedRound, clients_due, finished_rounds
from semanticfl_jax.simulation.prepare import Engine, prepare
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.simulation.setting_up import Given, advice, set_up
from semanticfl_jax.tasks import CLASSIFICATION
from semanticfl_jax.types import PyTree, Say, silent

# What a row has of a round that was not evaluated.
_ROW = {
    "round",
    "train_loss",
    "seconds",
    "images_per_second",
    "padding_share",
    "bytes_up",
    "bytes_down",
    "private",
    "epsilon",
    "clip",
    "clock",
    "staleness",
    "diverged",
    "diverged_clients",
    "diverged_count",
}


class Simulation:
    """A federated run, ready to train.

        for step in Simulation(config):
            print(step.round, step.metrics)

    Iterating trains round by round; `run` trains faster, several rounds in one dispatch where
    nothing is due in between.

    Args:
      config: what to run.
      dataset: images in place of those that `config.dataset` names.
      partition: in place of `config.partition`: one array of training indices a client.
      model: a Flax module in place of `config.model`. It is called as `(images, train=...,
        mask=...)`, with those of the two that it takes, and returns logits or `Outputs`.
      algorithm: an `Algorithm` in place of `config.algorithm`.
      init_params: weights to start from: a tree, a .safetensors file, or a run's directory.
      workdir: directory for config.json, metrics.jsonl, checkpoints/, summary.json and more; a run
        that is there is resumed. None writes nothing. No other process can use it until the run
        is closed, ends, or is stopped.
      overwrite: whether a run that is there is set aside, in a folder of the directory, first.
      callbacks: told of the start, every round, every evaluation and the end.
      progress: whether to show a bar.
      say: takes lines for the user; None for none.

    Attributes:
      config: what is run.
      round: rounds done.
      rounds: those of the whole run: `config.rounds`, or as many as a privacy budget lasts.
      history: a row a round.
      federation: the data set, in the hands of server and clients.
      say: takes lines for the user.
      client_tests: of the last test of all clients on their own images: for each model, arrays
        [N]; None before, or without any.
      engine: the compiled programs; None if the directory's run is finished.

    Raises:
      SemanticFLError: for whatever cannot be run, before anything is trained.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        *,
        dataset: ImageDataset | None = None,
        partition: Partition | Sequence[np.ndarray] | None = None,
        model: nn.Module | None = None,
        algorithm: Algorithm | None = None,
        init_params: PyTree | str | os.PathLike | None = None,
        workdir: str | os.PathLike | None = None,
        overwrite: bool = False,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
        say: Say | None = print,
    ):
        check_kinds(config, dataset, model, algorithm, callbacks)
        start_jax()
        self.config = config
        self.workdir = None if workdir is None else local_path(workdir, "workdir")
        self.history: list[dict[str, Any]] = []
        self.round = 0
        self.engine: Engine | None = None
        self.client_tests: dict[str, ClientFigures] | None = None
        self._closed = False
        self.say = say if say is not None and processes.is_main() else silent
        self._model = model
        self._lock: Lock | None = None
        self._ended: str | None = None
        self._finished = self._open(overwrite)
        if self._finished is not None:
            self.rounds = self.round
            return
        try:
            self._loggers = make_loggers(config, self.workdir)
            self._mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
            given = Given(config, dataset, partition, model, algorithm, init_params)
            self.parts = set_up(given, self._mesh, self.workdir, self.say)
            self.federation = self.parts.federation
            ledger = self.parts.ledger
            self.rounds = config.rounds if ledger is None else ledger.rounds
            self.engine = self._prepare()
            about = () if ledger is None else ledger.describe(config.rounds)
            for line in (*self.engine.description, *about, *advice(self.parts)):
                self.say(line)
            self._label_counts = self.federation.label_counts()
            self._divergence = Divergence(config, self.parts.task.headline)
            checkpoints = self._resume()
            self._callbacks = self._follow(callbacks, progress, checkpoints)
        except BaseException:
            self._unlock()
            raise

    # Setting up

    def _open(self, overwrite: bool) -> dict[str, Any] | None:
        """Return the summary of the directory's run, if it is finished; else lock the directory."""
        if self.workdir is None:
            return None
        with processes.main_first():
            summary, self._lock = files.open_run(
                self.workdir, self.config, overwrite, self.say, main=processes.is_main()
            )
        if summary is not None:
            self.say(files.finished_line(self.workdir, summary))
            self.history = read_metrics(self.workdir)
            self.round = summary["rounds"]
            known = files.rounds_in(self.history)
            if known < self.round:
                self.say(
                    f"warning: {self.workdir / METRICS_FILE} has the rows of {known} of "
                    f"{self.round} rounds only: the history is not whole"
                )
        return summary

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _prepare(self) -> Engine:
        """Put the run on the devices, and compile it."""
        if self.workdir is None:
            return prepare(self.parts, self._mesh, say=self.say)
        kept, states = self.workdir / files.TUNING, self.workdir / files.STATES
        return prepare(self.parts, self._mesh, kept=kept, states=states, say=self.say)

    def _resume(self) -> Checkpoints | None:
        """Restore the newest checkpoint, if the directory has one."""
        if self.workdir is None:
            return None
        checkpoints = Checkpoints(self.workdir / files.CHECKPOINTS)
        rows = read_metrics(self.workdir)
        if checkpoints.latest():
            files.check_states(self.workdir, self.config)
            shapes = shapes_of(self.engine.state)
            self.engine.state = None  # else it would be in memory beside the one that is restored
            done, self.engine.state = checkpoints.restore_newest(
                shapes, files.rounds_in(rows), self.workdir / files.DAMAGED, self.say
            )
            self.engine.round = done
            self.history = [self._as_planned(row) for row in rows if row["round"] <= done]
            self.round = done
            total = self.rounds
            self.say(f"resuming after round {done} of {total}, from {self.workdir}")
        else:
            checkpoints.begin_anew(self.engine.state)
        return checkpoints

    def _as_planned(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row without the evaluation that its round had only as the last of a plan."""
        number = row["round"]
        if number % self.config.eval_every and number != self.rounds:
            row = {name: row[name] for name in row if name in _ROW or client_tests.is_field(name)}
        if not clients_due(self.config, number, self.rounds):
            row = {name: row[name] for name in row if not client_tests.is_field(name)}
        return row

    def _follow(
        self, callbacks: Sequence[Callback], progress: bool, checkpoints: Checkpoints | None
    ) -> Callbacks:
        """Return the run's own callbacks and the user's, in the order in which they are called."""
        self._progress = following.ShowProgress() if progress else None
        members: list[Callback] = [] if self._progress is None else [self._progress]
        members += self._loggers
        if self.workdir is None:
            return Callbacks([*members, *callbacks])
        return Callbacks(
            [
                following.WriteMetrics(self.workdir),
                *members,
                *callbacks,
                # After the row: a run that is resumed from here keeps the rows up to here.
                following.SaveCheckpoints(checkpoints),
                following.WriteSummary(self.workdir),
                following.DrawPlots(self.workdir, self.say),
            ]
        )

    # Training

    @property
    def state(self) -> ServerState | None:
        """The server's state after `round` rounds; the next round takes its memory."""
        return None if self.engine is None else self.engine.state

    @property
    def note(self) -> str | None:
        """What must be known with every figure of the run: that it is not private; or None."""
        return None if self.config.private else NOT_PRIVATE

    def __iter__(self) -> Iterator[Step]:
        """Train the rounds that are left, one after another."""
        yield from self._train(self.rounds, lambda: False, one_by_one=True)

    def run(self, rounds: int | None = None) -> Result:
        """Train and return the result.

        Args:
          rounds: how many more at most; None: all that are left.

        Raises:
          Stopped: if a signal asked for it; the last round done is saved first.
        """
        until = self.rounds
        if rounds is not None:
            until = min(until, self.round + rounds)
        line = self.say if self._finished or self._progress is None else self._progress.say
        with stop_between_rounds(line) as asked_to_stop:
            for _ in self._train(until, asked_to_stop):
                pass
        if self.round < until:
            more = "; run the same command to go on" if self.workdir is not None else ""
            raise Stopped(f"stopped after round {self.round}{more}")
        return self.result()

    def _train(
        self, until: int, asked_to_stop: Callable[[], bool], one_by_one: bool = False
    ) -> Iterator[Step]:
        if self._finished is not None or self._ended is not None:
            return
        rounds = finished_rounds(
            self.engine,
            self.config,
            self.round,
            asked_to_stop,
            total=self.rounds,
            until=until,
            one_by_one=one_by_one,
        )
        yield from self._take(rounds)

    def _take(self, rounds: Iterator[FinishedRound]) -> Iterator[Step]:
        """Record rounds as they come, and end the run with its last one."""
        if self._closed:
            raise RuntimeError("this simulation is closed: a round failed, or close() was called")
        try:
            self._callbacks.start(self)
            for finished in rounds:
                self._require_lock()
                self.round = finished.number
                yield self._record(finished)
            if self.round == self.rounds:
                now = datetime.datetime.now().astimezone()
                self._ended = now.isoformat(sep=" ", timespec="seconds")
                with processes.main_first():
                    self._callbacks.end(self)
                self.close()
        except GeneratorExit:
            raise  # the loop was left; it can be taken up again
        except BaseException:
            self.close()
            raise

    def _require_lock(self) -> None:
        if self._lock is not None and not self._lock.held:
            raise SemanticFLError(
                f"{self.workdir} was taken over by a later Simulation of this process"
            )

    def _record(self, finished: FinishedRound) -> Step:
        """Tell everybody of a round; raise `DivergedError` if the run ends with it."""
        step = Step(finished.number, self._row(finished), finished.state)
        self.history.append(step.metrics)
        try:
            self._divergence.heed(step.metrics, self._aloud)
        except DivergedError:
            # The row is kept, the state is not: what resumes starts before this round.
            self._callbacks.round(self, dataclasses.replace(step, state=None))
            if self.workdir is not None and processes.is_main():
                write_json(self.workdir / files.SUMMARY, self.summary())
            raise
        self._callbacks.round(self, step)
        return step

    def _aloud(self, line: str) -> None:
        """Say a line in the midst of training: above the bar, if both are on the terminal."""
        above = self.say is print and self._progress is not None
        (self._progress.say if above else self.say)(line)

    def _row(self, finished: FinishedRound) -> dict[str, Any]:
        result = finished.result
        row = {
            "round": finished.number,
            "train_loss": float(result.train_loss),
            "seconds": finished.seconds,
            "images_per_second": float(result.images) / finished.seconds,
            "padding_share": float(result.padding_share),
            **self.engine.traffic.of_round(result),
            **{name: float(value) for name, value in result.figures.items()},
        }
        if self.parts.ledger is not None:
            row["epsilon"] = self.parts.ledger.epsilon(finished.number)
        if not self.config.private:
            row["private"] = False
        if finished.evaluation is not None:
            figures = finished.evaluation
            if self._knows_classes(figures):
                figures = evaluated(figures, self._label_counts)
            row |= figures
        row |= self._divergence.columns(result, finished.evaluation)
        if finished.client_tests is not None:
            self.client_tests = finished.client_tests
            row |= client_tests.over_clients(self.client_tests, self.metric)
        return to_json_values(row)

    def _knows_classes(self, figures: Mapping[str, Any]) -> bool:
        """Return whether figures tell the accuracy of every class of the data set."""
        return "class_accuracy" in figures and self.federation.dataset.has_classes

    @property
    def metric(self) -> Metric:
        """The metric by which the task judges models."""
        task = self.parts.task
        return Metric(task.headline, task.higher_is_better)

    def _about_task(self) -> dict[str, Any]:
        """Return the task and its headline for the summary, unless it is classification."""
        task = self.parts.task
        if task is CLASSIFICATION:
            return {}
        return {
            "task": self.config.task,
            "metric": task.headline,
            "higher_is_better": task.higher_is_better,
        }

    def close(self) -> None:
        """Close the run's files; it is called at the end of the run, too."""
        if self.engine is not None and not self._closed:
            self._closed = True
            try:
                self._callbacks.close()
            finally:
                self._unlock()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Results

    def result(self) -> Result:
        """Return what the run has come to after `round` rounds."""
        if self._finished is not None and self.workdir is not None:
            model = load_model(self.workdir / files.MODEL, self._model)
            return Result(model, self.history, self._finished, self.workdir)
        return Result(self._trained_model(), self.history, self.summary(), self.workdir)

    def _trained_model(self) -> TrainedModel:
        tested = jax.device_get(self.engine.tested(self.engine.state))
        parts = self.parts
        about = describe_model(
            self.config,
            parts.network,
            self._model is not None,
            parts.image_shape,
            self.federation.dataset,
        )
        params, batch_stats = tested.params["model"], tested.batch_stats
        return TrainedModel(parts.network, params, batch_stats, about, parts.task)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the rounds done so far, as summary.json holds them."""
        config, federation = self.config, self.federation
        evaluations = [row for row in self.history if self._knows_classes(row)]
        final = {}
        if evaluations:
            names = federation.dataset.class_names
            final = final_figures(evaluations[-1], names, self._label_counts)
            if "attack_success" in evaluations[-1]:
                final["final_attack_success"] = evaluations[-1]["attack_success"]
        figures = {
            "algorithm": self.parts.algorithm.name,
            "guidance": config.guidance.anchors if config.guidance.enabled else None,
            **({"student": config.guidance.student.control} if self.parts.student else {}),
            **({} if config.private else {"private": False, "note": NOT_PRIVATE}),
            "privacy": report(config, self.parts.ledger, self.round),
            "dataset": federation.dataset.name,
            "model": config.model.name if self._model is None else self.parts.network.name,
            "num_params": sum(x.size for x in jax.tree.leaves(self.state.params["model"])),
            "seed": config.seed,
            **self._about_task(),
            **summarize(self.history, metric=self.metric),
            **final,
            **summary_of(config, self.history),
            **client_tests.last_figures(self.history),
            "partition": federation.summary(),
            "compile_seconds": self.engine.compile_seconds,
            "device": self.engine.device,
            "versions": versions(),
            "commit": code_commit(),
            "finished": self._ended,
        }
        return to_json_values(figures)


def run(
    config: ExperimentConfig, workdir: str | os.PathLike | None = None, **options: Any
) -> Result:
    """Train one federated run and return its result.

        result = sfl.run(sfl.ExperimentConfig(dataset="digits", rounds=5), workdir="runs/digits")
        print(result.summary["final_accuracy"], result.history[-1]["train_loss"])

    Args:
      config: what to run.
      workdir: its directory, where a run that is there is resumed, and a finished one is read;
        None writes nothing.
      **options: as of `Simulation`: dataset, partition, model, algorithm, init_params, overwrite,
        callbacks, progress, say.

    Raises:
      SemanticFLError: for whatever cannot be run.
      Stopped: if a signal stopped the run after some round.
    """
    with Simulation(config, workdir=workdir, **options) as simulation:
        result = simulation.run()
        directory = result.workdir
        if simulation.engine is not None and directory is not None:
            simulation.say(f"wrote {directory / files.SUMMARY} and {directory / files.PLOTS}/")
        return result
