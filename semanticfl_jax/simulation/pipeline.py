"""A run's rounds in order: the devices do the next ones while the host records the last.

JAX dispatches programs without waiting for them, and devices run them one after another. So the
host waits for a block of rounds alone; it dispatches their evaluation, the copy of the state for a
checkpoint and the next block, and reads and records while the devices work. No block is dispatched
before the last one is done, so that a signal is heeded after the block under way.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.devices import processes
from semanticfl_jax.federated.client_tests import ClientFigures
from semanticfl_jax.federated.dispatch import next_block
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.simulation.engine import Engine


class FinishedRound(NamedTuple):
    """A round, and what is due after it.

    Attributes:
      number: from 1.
      result: what it measured, on the host.
      seconds: that the devices took, without evaluation and checkpoint; an equal share of a block.
      evaluation: figures on the test set, on the host; None where none is due.
      state: to be saved once the round is recorded; None where no checkpoint is due.
      client_tests: of all clients on their own images, on the host; None where none is due.
    """

    number: int
    result: RoundMetrics
    seconds: float
    evaluation: dict[str, np.ndarray] | None
    state: ServerState | None
    client_tests: dict[str, ClientFigures] | None = None


class _Block(NamedTuple):
    """Rounds done, with what is due after the last of them, which the devices may still work on."""

    numbers: range
    results: RoundMetrics
    seconds: float
    evaluation: dict[str, jax.Array] | None
    state: ServerState | None
    client_tests: dict[str, ClientFigures] | None


def runs_ahead(config: ExperimentConfig) -> bool:
    """Return whether the devices get the next rounds before the last ones are recorded.

    Not on CPU: its cores are busy with the rounds themselves, and two programs at a time can bring
    it to a halt. Each holds threads while it waits for the other devices in a sum over all, and
    devices of either may find none left. Nor with clients' states in host memory: the host takes
    part in those rounds, and would wait in their midst.
    """
    return jax.default_backend() != "cpu" and config.runtime.client_state_memory == "device"


def finished_rounds(
    engine: Engine,
    config: ExperimentConfig,
    done: int,
    asked_to_stop: Callable[[], bool],
    *,
    total: int | None = None,
    until: int | None = None,
    one_by_one: bool = False,
    ahead: bool = True,
    over: Callable[[], bool] = lambda: False,
) -> Iterator[FinishedRound]:
    """Run the rounds that are left, in blocks where the configuration allows it.

    Args:
      engine: what to run; its state is the one after `done` rounds.
      config: of the run.
      done: rounds done before.
      asked_to_stop: whether to stop after the rounds under way; the last of them then comes with
        its state, due or not, as does round `until`.
      total: the run's last round; by default `config.rounds`.
      until: the round to stop after; by default the run's last.
      one_by_one: whether `engine.state` is that of the round just yielded: no blocks, and nothing
        runs ahead.
      ahead: whether devices may get the next rounds before the last ones are recorded, where
        `runs_ahead` allows it; without, `engine.state` is that of a block's last round.
      over: whether the run has ended with the rounds that were just yielded, as who takes them may
        decide; not asked where devices may be ahead.

    Yields:
      The rounds in order, each after what is due has been read.
    """
    total = config.rounds if total is None else total
    until = total if until is None else until
    watched = one_by_one or not ahead
    ahead = runs_ahead(config) and not watched
    block, seconds, stopping = None, None, False
    with ThreadPoolExecutor(1) as clock:
        while done < until and not stopping:
            count = 1 if one_by_one else next_block(config, done, seconds, until)
            count = processes.of_main(count)
            began = time.perf_counter()
            results = engine.advance(count)
            # The devices first do what is due after the last block, which is not part of this
            # one's time. A thread notes when each ends, because recording the last block may take
            # longer than this one.
            due = clock.submit(_time_when_ready, block and (block.evaluation, block.state))
            ended = clock.submit(_time_when_ready, results)
            if block is not None:
                yield from _rounds(engine, block)
                began = max(began, due.result())
            seconds = (ended.result() - began) / count
            done += count
            # Blocks end where something is due (`next_block`).
            tested = evaluation_due(config, done, total)
            evaluation = engine.evaluate(engine.state) if tested else None
            if not ahead:
                jax.block_until_ready(evaluation)
            stopping = processes.anywhere(asked_to_stop())
            last = stopping or done == until
            kept = None
            if last or done % config.checkpoint_every == 0:
                # A copy, because the next round is given the state while this is written.
                final = stopping or done == total
                kept = engine.state if final else jax.tree.map(lambda x: x.copy(), engine.state)
            # Read at once: the next round takes the states of the clients.
            due_now = clients_due(config, done, total)
            clients = engine.test_clients(engine.state) if due_now else None
            numbers = range(done - count + 1, done + 1)
            block = _Block(numbers, results, seconds, evaluation, kept, clients)
            if last or not ahead:
                yield from _rounds(engine, block)
                block = None
                stopping = stopping or (watched and processes.anywhere(over()))


def evaluation_due(config: ExperimentConfig, done: int, total: int) -> bool:
    """Return whether the model is to be evaluated after `done` rounds of `total`."""
    return done == total or done % config.eval_every == 0


def clients_due(config: ExperimentConfig, done: int, total: int) -> bool:
    """Return whether all clients are to be tested after `done` rounds of `total`."""
    wanted, every = config.client_test.share > 0, config.client_test.every
    return wanted and (done == total or (every > 0 and done % every == 0))


def _time_when_ready(arrays: Any) -> float:
    jax.block_until_ready(arrays)
    return time.perf_counter()


def _rounds(engine: Engine, block: _Block) -> list[FinishedRound]:
    """Return the rounds of a block, read from the devices, with all that is due after them."""
    results, evaluation = jax.device_get((block.results, block.evaluation))
    jax.block_until_ready(block.state)
    rounds = []
    for index, number in enumerate(block.numbers):
        result = results
        if engine.run_block is not None:
            result = jax.tree.map(lambda x, i=index: x[i], results)
        rounds.append(FinishedRound(number, result, block.seconds, None, None))
    rounds[-1] = rounds[-1]._replace(
        evaluation=evaluation, state=block.state, client_tests=block.client_tests
    )
    return rounds
