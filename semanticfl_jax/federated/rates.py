"""Learning rates over the rounds: a schedule's factor times the rate that is configured.

They are worked out on the host and handed to the compiled round, so that runs with other rates or
schedules use the same program. A schedule is a builder `(settings, context)` of a function from the
number of rounds done to a factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import Aggregate, Algorithm, Model
from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.optimizer import CosineConfig, ExponentialConfig, StepConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.client_update import extra_shapes, init_state, rule_state
from semanticfl_jax.federated.contracts import as_arrays
from semanticfl_jax.randomness import run_key
from semanticfl_jax.registry import SCHEDULES
from semanticfl_jax.types import PyTree

Schedule = Callable[[int], float]


class Rates(NamedTuple):
    """The learning rates of a round, or of several, stacked.

    Attributes:
      client: float32 scalar, of the clients' optimiser.
      server: float32 scalar, of the server's.
    """

    client: jax.Array
    server: jax.Array


def constant(settings: object, context: AlgorithmContext) -> Schedule:
    """Return 1 in every round."""
    del settings, context
    return lambda done: 1.0


def cosine(settings: CosineConfig, context: AlgorithmContext) -> Schedule:
    """Return final + (1 - final) (1 + cos(pi t / rounds)) / 2 in round t, counted from 0."""
    rounds, final = context.config.rounds, settings.final
    return lambda done: final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done / rounds))


def exponential(settings: ExponentialConfig, context: AlgorithmContext) -> Schedule:
    """Return decay^t in round t, counted from 0."""
    del context
    return lambda done: settings.decay**done


def step(settings: StepConfig, context: AlgorithmContext) -> Schedule:
    """Return factor^floor(t / every) in round t, counted from 0."""
    del context
    return lambda done: settings.factor ** (done // settings.every)


def make_rates(config: ExperimentConfig) -> Callable[[int, int], Rates]:
    """Build the rates of a run.

    Returns:
      `rates(done, count)`: those of the `count` rounds after `done`, float32 [count] each.

    Raises:
      SemanticFLError: if a schedule's factor is negative, or no finite number, in any round.
    """
    optimizer, context = config.optimizer, AlgorithmContext(config)

    def schedule(name: str) -> Schedule:
        made = SCHEDULES[name].build(optimizer.settings[name], context, Callable)
        return lambda done: _factor(made(done), name, done)

    of_client, of_server = schedule(optimizer.schedule), schedule(optimizer.server_schedule)
    for number in range(config.rounds):  # not only when the run comes to it
        of_client(number)
        of_server(number)

    def client(done: int) -> float:
        warmup = optimizer.warmup_rounds
        rising = min(1.0, (done + 1) / warmup) if warmup else 1.0
        return config.learning_rate * rising * of_client(done)

    def rates(done: int, count: int) -> Rates:
        rounds = range(done, done + count)
        server = [config.algorithm.server_rate * of_server(number) for number in rounds]
        return Rates(np.array(list(map(client, rounds)), np.float32), np.array(server, np.float32))

    return rates


def reads_server_rate(algorithm: Algorithm, shapes: Model, places: int) -> bool:
    """Return whether the server's step reads `Aggregate.rate`, which tracing it shows.

    Args:
      algorithm: whose server rule it is.
      shapes: of the model.
      places: of the cohort.
    """

    def step(rate: jax.Array, model: Model, extra: PyTree) -> tuple[PyTree, PyTree]:
        own = rule_state(init_state(algorithm, model))
        states = jax.tree.map(lambda x: jnp.broadcast_to(x, (places, *x.shape)), own)
        server = as_arrays(algorithm.server.init(model), f"ServerRule.init of {algorithm.name}")
        clients, key = jnp.arange(places), run_key(0)
        aggregate = Aggregate(
            model.params, extra, 1.0, jnp.float32(places), clients, states, states, rate, key
        )
        return algorithm.server.update(server, model.params, aggregate)

    rate, extra = jax.ShapeDtypeStruct((), jnp.float32), extra_shapes(algorithm, shapes)
    traced = jax.make_jaxpr(step)(rate, shapes, extra).jaxpr
    read = [*traced.outvars, *(value for each in traced.eqns for value in each.invars)]
    return any(value is traced.invars[0] for value in read)


def _factor(factor: Any, name: str, done: int) -> float:
    """Return a schedule's factor after `done` rounds, if it is one."""
    try:
        fits = np.shape(factor) == () and 0 <= float(factor) < np.inf
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise SemanticFLError(
            f"the schedule {name} must return a finite factor that is not negative, for every "
            f"number of rounds done, got {factor!r} for {done}"
        )
    return float(factor)
