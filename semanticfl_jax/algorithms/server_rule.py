"""What the server does with a round's aggregated update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.transforms import nothing
from semanticfl_jax.types import PyTree


class Aggregate(NamedTuple):
    """What the server has when all clients of a round are done.

    Attributes:
      update: what the aggregator made of the clients' updates, a tree of parameters; zero where
        nothing is uploaded.
      extra: sum of the e_i.
      weight: the sum of the p_i that `extra` may be made of: 1, a number; a float32 scalar where
        clients that diverged are left out.
      participants: float32 scalar, clients that trained.
      clients: int32 [places], client ids; -1 in empty places.
      before: the cohort's client states before the round, stacked: [places, ...].
      after: the same after it.
      rate: float32 scalar, the server's learning rate in this round.
      key: for what the server draws; depends on the seed and the round alone.
    """

    update: PyTree
    extra: PyTree
    weight: jax.Array | float
    participants: jax.Array
    clients: jax.Array
    before: PyTree
    after: PyTree
    rate: jax.Array
    key: jax.Array


def _as_it_is(state: PyTree, model: Model) -> Model:
    del state
    return model


@dataclasses.dataclass(frozen=True)
class ServerRule:
    """What the server does to its parameters at the end of a round.

    A step along the average update, as an example:

        def update(state, params, aggregate):
            return jax.tree.map(lambda x, d: x + rate * d, params, aggregate.update), state

        rule = sfl.ServerRule(update)

    Attributes:
      update: (state, parameters, `Aggregate`) -> (parameters, state).
      init: initial model -> state before the first round.
      broadcast: state -> what clients receive in every round besides the model.
      evaluated: (state, model) -> the model to be tested, if it is not the one that is sent.
      batch_stats: (state after `update`, aggregated running statistics) -> running statistics, for
        a rule whose parameters are not the old ones plus an update. FedCDA's are the average of
        models that it selects, and its statistics are those models'. None, as nearly everywhere:
        the aggregated statistics.
      figures: (state after the round, `Aggregate`) -> float scalars by name, for the round's row;
        null in a round in which the server takes no step. None: it measures nothing.
      optimizer: the server optimiser whose step `update` is, as `algorithm.server_optimizer` calls
        it; None: the step is its own, and no other can be asked for.
    """

    update: Callable[[PyTree, PyTree, Aggregate], tuple[PyTree, PyTree]]
    init: Callable[[Model], PyTree] = nothing
    broadcast: Callable[[PyTree], PyTree] = nothing
    evaluated: Callable[[PyTree, Model], Model] = _as_it_is
    batch_stats: Callable[[PyTree, PyTree], PyTree] | None = None
    figures: Callable[[PyTree, Aggregate], Mapping[str, jax.Array]] | None = None
    optimizer: str | None = None
