"""A run's rounds in order: the devices do the next ones while the host records the last.

JAX dispatches programs without waiting for them, and devices run them one after another. So the
host waits for a block of rounds alone, and dispatches the next one at once: its evaluation and the
copy of its state for a checkpoint, dispatched with it, are read and recorded while the devices go
on. Nothing is dispatched before the block under way is done, so that a signal is heeded after it.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.simulation import processes
from semanticfl_jax.simulation.block import next_block
from semanticfl_jax.simulation.prepare import Simulation
from semanticfl_jax.simulation.round import RoundMetrics, ServerState

PyTree = Any


class FinishedRound(NamedTuple):
    """A round, and what is due after it.

    Attributes:
      number: from 1.
      result: what it measured, on the host.
      seconds: that the devices took, without evaluation and checkpoint; an equal share of a block.
      evaluation: figures on the test set, on the host; None where none is due.
      state: to be saved once the round is recorded; None where no checkpoint is due.
    """

    number: int
    result: RoundMetrics
    seconds: float
    evaluation: dict[str, np.ndarray] | None
    state: ServerState | None


class _Block(NamedTuple):
    """Rounds done, with what is due after the last of them, which the devices may still work on."""

    numbers: range
    results: RoundMetrics
    seconds: float
    evaluation: dict[str, jax.Array] | None
    state: ServerState | None


def finished_rounds(
    simulation: Simulation,
    state: ServerState,
    config: ExperimentConfig,
    done: int,
    asked_to_stop: Callable[[], bool],
) -> Iterator[FinishedRound]:
    """Runs the rounds that are left.

    Args:
      simulation: the compiled programs and their data.
      state: the server after round `done`; donated.
      config: of the run.
      done: rounds done before.
      asked_to_stop: asked after every block. After a yes no other one follows; the last round comes
        with its state, due or not, as does the last round of the run.
    """
    before, seconds, stopping = None, None, False
    while done < config.rounds and not stopping:
        count = processes.of_main(next_block(config, done, seconds))
        if before is not None and config.client_state_memory == "host":
            # The host takes part in the round, and would wait for the evaluation within its time.
            jax.block_until_ready((before.evaluation, before.state))
        began = time.perf_counter()
        state, results = run_rounds(simulation, state, count)
        done += count
        # Blocks end where something is due (`next_block`).
        tested = done == config.rounds or done % config.eval_every == 0
        evaluation = simulation.evaluate(state) if tested else None
        saved = done < config.rounds and done % config.checkpoint_every == 0
        # A copy, because the next round is given the state while this is written.
        copy = jax.tree.map(lambda x: x.copy(), state) if saved else None
        if before is not None:
            due = before.evaluation, before.state
            if not _ready(due):
                jax.block_until_ready(due)
                began = time.perf_counter()
            yield from _rounds(simulation, before)
        jax.block_until_ready(results)
        seconds = (time.perf_counter() - began) / count
        before = _Block(range(done - count + 1, done + 1), results, seconds, evaluation, copy)
        stopping = processes.anywhere(asked_to_stop())
    if before is not None:
        # Nothing follows that would be given its state, so that no copy is needed.
        yield from _rounds(simulation, before._replace(state=state))


def run_rounds(
    simulation: Simulation, state: ServerState, count: int
) -> tuple[ServerState, RoundMetrics]:
    """Dispatches `count` rounds, together if they can be; donates `state`.

    Returns:
      The state after them, and their metrics, stacked where the simulation runs blocks.
    """
    arguments = (state, simulation.data, simulation.shared, simulation.key)
    if simulation.run_block is None:
        return simulation.run_round(*arguments)
    return simulation.run_block(*arguments, np.int32(count))


def _ready(tree: PyTree) -> bool:
    """Whether the devices are done with all arrays that are theirs."""
    theirs = [x for x in jax.tree.leaves(tree) if hasattr(x, "is_ready")]
    return all(x.is_ready() for x in theirs)


def _rounds(simulation: Simulation, block: _Block) -> list[FinishedRound]:
    """The rounds of a block, read from the devices."""
    results, evaluation = jax.device_get((block.results, block.evaluation))
    rounds = []
    for index, number in enumerate(block.numbers):
        result = results
        if simulation.run_block is not None:
            result = jax.tree.map(lambda x, i=index: x[i], results)
        rounds.append(FinishedRound(number, result, block.seconds, None, None))
    rounds[-1] = rounds[-1]._replace(evaluation=evaluation, state=block.state)
    return rounds
