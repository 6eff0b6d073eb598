"""One experiment, from images to report.

image source -> partition -> corruption -> anchors, student -> data on devices -> rounds -> metrics
-> report
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices import processes
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.start import start_jax
from semanticfl_jax.errors import DivergedError, Stopped
from semanticfl_jax.federated.client_tests import ClientFigures
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.files import write_json
from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.semantics.anchor_images import NOT_PRIVATE
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.arguments import check_kinds
from semanticfl_jax.simulation.callbacks import (
    Callback,
    Callbacks,
    ShowProgress,
    Step,
    hear_rounds,
)
from semanticfl_jax.simulation.divergence import Divergence
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.simulation.export import load_model
from semanticfl_jax.simulation.interrupt import stop_between_rounds
from semanticfl_jax.simulation.loggers import make_loggers
from semanticfl_jax.simulation.pipeline import FinishedRound, finished_rounds
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.simulation.rows import Rows
from semanticfl_jax.simulation.run_directory import RunDirectory
from semanticfl_jax.simulation.setting_up import Given, advice, require_same, set_up
from semanticfl_jax.simulation.summary import summarize_run
from semanticfl_jax.types import PyTree, Say, silent


class Simulation:
    """A federated run, ready to train.

        for step in Simulation(config):
            print(step.round, step.metrics)

    Iterating trains round by round; `run` trains faster, several rounds in one dispatch where
    nothing is due in between.

    Args:
      config: what to run.
      dataset: images, or other inputs, in place of those that `config.dataset` names.
      partition: in place of `config.partition`: one array of training indices a client.
      model: a Flax module in place of `config.model`. It is called as `(images, train=...,
        mask=...)`, with those of the two that it takes, and returns logits or `Outputs`.
      algorithm: an `Algorithm` in place of `config.algorithm`.
      init_params: weights to start from: a tree, a `Result` or `TrainedModel`, a .safetensors file
        of `Result.export` (files of other tools are refused), or a run's directory.
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
        self._ended: str | None = None
        self._stopping = False
        self._model_at_end: Model | None = None
        given = Given(config, dataset, partition, model, algorithm, init_params)
        self._directory = RunDirectory(self.workdir, config, overwrite, self.say)
        self._finished = self._directory.finished
        if self._finished is not None and self.workdir is not None:
            require_same(given, self.workdir)
            self.rounds = self.round = self._finished["rounds"]
            self.history = self._directory.history()
            return
        try:
            loggers = make_loggers(config, self.workdir)
            self._mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
            self.parts = set_up(given, self._mesh, self.workdir, self.say)
            self.federation = self.parts.federation
            ledger = self.parts.ledger
            self.rounds = config.rounds if ledger is None else ledger.rounds
            self.engine = self._prepare()
            about = () if ledger is None else ledger.describe(config.rounds)
            for line in (*self.engine.description, *about, *advice(self.parts)):
                self.say(line)
            self._divergence = Divergence(config, self.parts.task.headline)
            self._rows = Rows(self.parts, self.engine.traffic, self._divergence, self.rounds)
            self._resume(algorithm)
            self._bar = ShowProgress() if progress else None
            self._callbacks = Callbacks.of_run(
                self._bar, loggers, callbacks, self.workdir, self._directory.checkpoints, self.say
            )
            # Callbacks see the state of the round that they are told of.
            self._watched = bool(processes.of_main(int(hear_rounds(callbacks))))
            self._ahead = not processes.of_main(int(bool(callbacks)))
        except BaseException:
            self._directory.release()
            raise

    # Setting up

    def _prepare(self) -> Engine:
        """Put the run on the devices, and compile it."""
        if self.workdir is None:
            return prepare(self.parts, self._mesh, say=self.say)
        kept, states = self.workdir / files.TUNING, self.workdir / files.STATES
        return prepare(self.parts, self._mesh, kept=kept, states=states, say=self.say)

    def _resume(self, algorithm: Algorithm | None) -> None:
        """Take up the run where the directory's newest checkpoint has it.

        Args:
          algorithm: that was given as an object; its functions cannot be compared.
        """
        rows = self._directory.resume(self.engine)
        self.round = self.engine.round
        self.history = [self._rows.as_planned(row) for row in rows]
        if self.round:
            self.say(f"resuming after round {self.round} of {self.rounds}, from {self.workdir}")
            if algorithm is not None:
                self.say(
                    f"{algorithm.name} was given as an object, of which its name and the form of "
                    "its states are compared: whether its settings are the same is not known"
                )

    # Training

    @property
    def state(self) -> ServerState | None:
        """The server's state after `round` rounds.

        Its arrays are deleted by the next round: copy what you keep (`jax.device_get`).
        """
        return None if self.engine is None else self.engine.state

    @property
    def note(self) -> str | None:
        """What must be known with every figure of the run: that it is not private; or None."""
        return None if self.config.private else NOT_PRIVATE

    def __iter__(self) -> Iterator[Step]:
        """Train the rounds that are left, one after another; `close` saves the last one done."""
        yield from self._train(self.rounds, lambda: False, one_by_one=True)

    def stop(self) -> None:
        """End the run after the round under way, as after its last: summary, model and plots.

        For early stopping, in a callback or in a loop over the rounds. Rounds that are dispatched
        together, because no callback hears of every round, are finished first. The figures are of
        the evaluations so far. The run is over: its directory is not resumed, but read.
        """
        self._stopping = True

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
        line = self.say if self._finished or self._bar is None else self._bar.say
        with stop_between_rounds(line) as asked_to_stop:
            for _ in self._train(until, asked_to_stop):
                pass
        if self.round < until and self._ended is None:
            more = "; run the same command to go on" if self.workdir is not None else ""
            raise Stopped(f"stopped after round {self.round}{more}")
        return self.result()

    def _train(
        self, until: int, asked_to_stop: Callable[[], bool], one_by_one: bool = False
    ) -> Iterator[Step]:
        if self._finished is not None or self._ended is not None:
            return
        if processes.anywhere(self._stopping):
            until = self.round
        rounds = finished_rounds(
            self.engine,
            self.config,
            self.round,
            asked_to_stop,
            over=lambda: self._stopping,
            total=self.rounds,
            until=until,
            one_by_one=one_by_one or self._watched,
            ahead=self._ahead,
        )
        yield from self._take(rounds)

    def _take(self, rounds: Iterator[FinishedRound]) -> Iterator[Step]:
        """Record rounds as they come, and end the run with its last one."""
        if self._closed:
            raise RuntimeError("this simulation is closed: a round failed, or close() was called")
        try:
            self._callbacks.start(self)
            for finished in rounds:
                self.require_open()
                self.round = finished.number
                yield self._record(finished)
            self._stopping = processes.anywhere(self._stopping)
            if self.round == self.rounds or self._stopping:
                now = datetime.datetime.now().astimezone()
                self._ended = now.isoformat(sep=" ", timespec="seconds")
                # By all processes: programs of devices of several cannot run in one of them.
                self._model_at_end = self._tested()
                with processes.main_first():
                    self._callbacks.end(self)
                self.close()
        except GeneratorExit:
            raise  # the loop was left; it can be taken up again
        except BaseException:
            self._close(save=False)
            raise

    def require_open(self) -> None:
        """Raise `RuntimeError` if the simulation is closed: its rounds are no longer kept."""
        if self._closed:
            raise RuntimeError(
                "close() was called in the midst of training; stop() ends a run early"
            )
        self._directory.require_own()

    def _record(self, finished: FinishedRound) -> Step:
        """Tell everybody of a round; raise `DivergedError` if the run ends with it."""
        row, who = self._rows.of(finished), finished.result
        step = Step(finished.number, row, finished.state, who.cohort[who.reported])
        if finished.client_tests is not None:
            self.client_tests = finished.client_tests
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
        above = self.say is print and self._bar is not None
        (self._bar.say if above else self.say)(line)

    @property
    def metric(self) -> Metric:
        """The metric by which the task judges models."""
        return self.parts.metric

    def close(self) -> None:
        """Save the last round done, so that it can be resumed, and close the run's files.

        It is called at the end of the run, too. After a round that failed nothing is saved, nor in
        a run of several processes, where rounds are saved as they are due.
        """
        self._close(save=True)

    def _close(self, save: bool) -> None:
        if self.engine is None or self._closed:
            return
        self._closed = True
        try:
            try:
                if save:
                    self._save()
            finally:
                self._callbacks.close()
        finally:
            self._directory.release()

    def _save(self) -> None:
        self._directory.save(self.engine, self.round)

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
        tested = self._tested() if self._model_at_end is None else self._model_at_end
        model = self.parts.trained_model(tested)
        return Result(model, self.history, self.summary(), self.workdir)

    def _tested(self) -> Model:
        """Return the model that is tested, in host memory; all processes must ask."""
        model: Model = jax.device_get(self.engine.tested(self.engine.state))
        return model

    def summary(self) -> dict[str, Any]:
        """Return the figures of the rounds done so far, as summary.json holds them."""
        early = self._ended is not None and self.round < self.rounds
        return summarize_run(
            self.parts, self.engine, self.history, self.round, self._ended, stopped_early=early
        )


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
