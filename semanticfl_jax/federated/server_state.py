"""What goes from one round to the next at the server."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.algorithms.fixed import whole
from semanticfl_jax.federated.cohort import with_contacts
from semanticfl_jax.federated.contracts import as_arrays
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.federated.versions import first_versions, with_version
from semanticfl_jax.types import PyTree


class ServerState(NamedTuple):
    """Everything that goes from one round to the next.

    Attributes:
      params: {"model": ..., term name: ...}, float32; None for what nobody trains.
      batch_stats: running statistics of batch normalisation, float32.
      server: state of the algorithm's server rule.
      aggregator: state of its aggregator; () if that keeps nothing.
      clients: states of all clients, stacked: [num_clients, ...]; () if they keep nothing.
      contacted: bool [num_clients], clients that have taken part before.
      round: int32 scalar, rounds done.
      versions: the last models, stacked (`versions`); () where rounds are synchronous.
    """

    params: PyTree
    batch_stats: PyTree
    server: PyTree
    aggregator: PyTree
    clients: PyTree
    contacted: jax.Array
    round: jax.Array
    versions: PyTree = ()

    @property
    def model(self) -> Model:
        """Return the model that clients receive."""
        return Model(self.params, self.batch_stats)


def init_server(
    model: Model, algorithm: Algorithm, num_clients: int, versions: int = 0
) -> ServerState:
    """Return the state before round 1, without the clients' (`client_state.init_clients`).

    With `versions`, the server keeps so many of its models.
    """
    aggregator = algorithm.aggregator
    sent = travelling(algorithm, model)
    return ServerState(
        params=model.params,
        batch_stats=model.batch_stats,
        server=as_arrays(algorithm.server.init(model), f"ServerRule.init of {algorithm.name}"),
        aggregator=()
        if aggregator.start is None
        else as_arrays(aggregator.start(sent), f"Aggregator.start of {aggregator.name}"),
        clients=(),
        contacted=jnp.zeros(num_clients, bool),
        round=jnp.zeros((), jnp.int32),
        versions=first_versions(model, versions),
    )


def tested_model(algorithm: Algorithm, state: ServerState, fixed: PyTree = None) -> Model:
    """Return the model that is tested and exported; of most algorithms it is the server's.

    It is whole, with the `fixed` parameters that nobody trains; None: there are none.
    """
    return whole(algorithm.server.evaluated(state.server, state.model), fixed)


def unchanged(state: ServerState) -> tuple[Model, PyTree, PyTree]:
    """Return model, server's and aggregator's state, after a round in which nobody reports."""
    return state.model, state.server, state.aggregator


def next_state(
    state: ServerState, model: Model, server: PyTree, aggregator: PyTree, cohort: jax.Array
) -> ServerState:
    """Return the state after a round; the clients' states are put into it elsewhere."""
    return ServerState(
        params=model.params,
        batch_stats=model.batch_stats,
        server=server,
        aggregator=aggregator,
        clients=state.clients,
        contacted=with_contacts(state.contacted, cohort),
        round=state.round + 1,
        versions=with_version(state.versions, model, state.round + 1) if state.versions else (),
    )
