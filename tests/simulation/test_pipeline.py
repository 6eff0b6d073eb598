"""Rounds come in order with what belongs to them; on accelerators the next ones run meanwhile."""

import contextlib
import dataclasses
import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig, RuntimeConfig
from semanticfl_jax.simulation import pipeline
from semanticfl_jax.simulation.engine import Engine

CONFIG = ExperimentConfig(
    rounds=7,
    eval_every=2,
    checkpoint_every=3,
    runtime=RuntimeConfig(rounds_per_dispatch=2),
    public_per_class=2,
)


@pytest.fixture(params=[False, True], ids=["one at a time", "ahead"])
def ahead(request, monkeypatch):
    """Whether rounds are dispatched before the last ones are recorded."""
    monkeypatch.setattr(pipeline, "runs_ahead", lambda config: request.param)
    return request.param


class Counting(SimpleNamespace):
    """An engine with programs of its own."""

    advance = Engine.advance


@pytest.fixture
def simulation():
    """The state counts rounds, a round measures its number, an evaluation finds ten times that."""

    def run_block(state, data, shared, key, rates, count):
        return state + count, state + 1 + jnp.arange(2)

    return Counting(
        state=jnp.zeros((), jnp.int32),
        data_of=lambda number: None,
        shared=None,
        key=None,
        rates=lambda done, count: None,
        round=0,
        longest=2,
        run_round=None,
        run_block=jax.jit(run_block, donate_argnums=0),
        evaluate=jax.jit(lambda state: {"test_accuracy": 10 * state}),
    )


def run(simulation, config=CONFIG, asked_to_stop=lambda: False):
    simulation.state = jnp.zeros((), jnp.int32)
    return pipeline.finished_rounds(simulation, config, 0, asked_to_stop)


@pytest.mark.usefixtures("ahead")
def test_rounds_come_in_order_with_their_own_evaluation_and_state(simulation):
    rounds = list(run(simulation))
    assert [finished.number for finished in rounds] == [1, 2, 3, 4, 5, 6, 7]
    assert [int(finished.result) for finished in rounds] == [1, 2, 3, 4, 5, 6, 7]
    tested = {f.number: int(f.evaluation["test_accuracy"]) for f in rounds if f.evaluation}
    assert tested == {2: 20, 4: 40, 6: 60, 7: 70}
    # States are whole although later rounds were given theirs.
    assert {f.number: int(f.state) for f in rounds if f.state is not None} == {3: 3, 6: 6, 7: 7}


def test_a_block_is_recorded_before_the_next_is_dispatched_or_while_it_runs(
    simulation, ahead, monkeypatch
):
    events = []

    def spy(function, name):
        def call(*arguments):
            events.append(name)
            return function(*arguments)

        return call

    simulation.run_block = spy(simulation.run_block, "dispatch")
    simulation.evaluate = spy(simulation.evaluate, "evaluate")
    monkeypatch.setattr(jax, "device_get", spy(jax.device_get, "read"))
    for finished in run(simulation, dataclasses.replace(CONFIG, checkpoint_every=100)):
        events.append(finished.number)
    expected = []
    if ahead:
        expected = ["dispatch", "evaluate"]
        for number in (1, 3, 5):
            expected += ["dispatch", "read", number, number + 1, "evaluate"]
        expected += ["read", 7]
    else:
        for number in (1, 3, 5):
            expected += ["dispatch", "evaluate", "read", number, number + 1]
        expected += ["dispatch", "evaluate", "read", 7]
    assert events == expected


def test_nothing_runs_ahead_on_cpu():
    assert not pipeline.runs_ahead(CONFIG)


def test_accelerators_run_ahead_but_for_states_in_host_memory(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert pipeline.runs_ahead(CONFIG)
    host = dataclasses.replace(CONFIG, runtime=RuntimeConfig(client_state_memory="host"))
    assert not pipeline.runs_ahead(host)


@pytest.mark.usefixtures("ahead")
def test_after_a_request_to_stop_the_block_under_way_is_done_and_can_be_saved(simulation):
    seen = []
    config = dataclasses.replace(CONFIG, checkpoint_every=100)
    # Asked for while rounds 1 and 2 are recorded.
    for finished in run(simulation, config, lambda: bool(seen)):
        seen.append(finished)
    assert [finished.number for finished in seen] == [1, 2, 3, 4]
    assert [finished.state is not None for finished in seen] == [False, False, False, True]
    assert int(seen[-1].state) == 4
    # Asked for during the first block: nothing else is dispatched.
    assert [finished.number for finished in run(simulation, config, lambda: True)] == [1, 2]


@pytest.mark.parametrize("recording", [0.5, 8.0])  # less and more than a block takes
def test_seconds_are_those_of_the_rounds_without_what_comes_between(
    simulation, ahead, monkeypatch, recording
):
    now, busy_until = 0.0, 0.0

    class Timed:
        """An array that is ready so many seconds after all that was dispatched before it."""

        def __init__(self, seconds, values):
            nonlocal busy_until
            busy_until = max(now, busy_until) + seconds
            self.ready, self.values = busy_until, values

        def is_ready(self):
            return now >= self.ready

        def block_until_ready(self):
            nonlocal now
            now = max(now, self.ready)

        def __array__(self, *_, **__):
            self.block_until_ready()
            return np.asarray(self.values)

        def copy(self):
            return Timed(100.0, self.values)

    noted = [0.0]

    class Clock:
        """A thread that notes when arrays are ready, one after another."""

        @staticmethod
        def submit(function, arrays):
            del function
            noted.append(max(now, noted[-1], *(x.ready for x in jax.tree.leaves(arrays)), 0.0))
            return SimpleNamespace(result=functools.partial(wait, noted[-1]))

    def wait(until):
        nonlocal now
        now = max(now, until)
        return until

    simulation.state = Timed(0.0, 0)
    simulation.run_block = lambda state, *_: (state, Timed(3.0 * _[-1], [0, 0]))
    simulation.evaluate = lambda state: {"test_accuracy": Timed(10.0, 0.5)}
    monkeypatch.setattr(pipeline, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", lambda count: contextlib.nullcontext(Clock))
    rounds = []
    for finished in pipeline.finished_rounds(simulation, CONFIG, 0, lambda: False):
        rounds.append(finished)
        now += recording
    assert [finished.seconds for finished in rounds] == [3.0] * 7
    blocks = (2, 1, 1, 2, 1)
    due = 4 * 10.0 + 2 * 100.0  # evaluations, copies
    if ahead:  # a block is recorded while the next one runs
        pairs = itertools.pairwise(blocks)
        both = sum(max(recording * last, 3.0 * following) for last, following in pairs)
        assert now == due + 3.0 * blocks[0] + both + recording * blocks[-1]
    else:
        assert now == due + 7 * (3.0 + recording)


@pytest.mark.usefixtures("ahead")
def test_one_by_one_the_state_is_that_of_the_round_just_given(simulation):
    seen = []
    for finished in pipeline.finished_rounds(
        simulation, CONFIG, 0, lambda: False, until=5, one_by_one=True
    ):
        assert int(simulation.state) == finished.number
        seen.append((finished.number, finished.state is not None))
    # Checkpoints are due every third round, and where the rounds end.
    assert seen == [(1, False), (2, False), (3, True), (4, False), (5, True)]


@pytest.mark.usefixtures("ahead")
def test_what_ends_early_can_be_taken_up_again(simulation):
    first = list(pipeline.finished_rounds(simulation, CONFIG, 0, lambda: False, until=4))
    rest = list(pipeline.finished_rounds(simulation, CONFIG, 4, lambda: False))
    assert [int(each.result) for each in first + rest] == [1, 2, 3, 4, 5, 6, 7]
    # The state that was handed out is whole although rounds went on.
    assert int(first[-1].state) == 4
