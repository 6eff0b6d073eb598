"""What a round begins with: who trains with which weight, and what the server sends."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.attacks.base import draw_attackers
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.federated.chunks import Places
from semanticfl_jax.federated.contracts import require_weights
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.rates import Rates
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.types import PyTree


def filled_places(
    algorithm: Algorithm,
    data: FederatedDataset,
    cohort: jax.Array,
    reported: jax.Array,
    rows: PyTree,
) -> tuple[Places, jax.Array]:
    """Return the places of those who report, with their weights, and their samples, int32 [places].

    Args:
      algorithm: its weights.
      data: the clients' images.
      cohort: int32 [places], as drawn.
      reported: bool [places].
      rows: the cohort's client states.
    """
    clients = jnp.where(reported, cohort, -1)
    sizes = jnp.where(reported, data.sizes[clients], 0)
    counts = jnp.where(reported[:, None], data.label_counts[clients], 0)
    weights = require_weights(algorithm.weights(sizes, counts), sizes, algorithm.name)
    return Places(clients, weights, rows), sizes


def broadcast_of(
    algorithm: Algorithm, state: ServerState, rates: Rates, reporting: jax.Array, key: jax.Array
) -> Broadcast:
    """Return what the server sends besides the model, and who attacks, which it does not send.

    `reporting`, int32 [places], are the ids of those who report; -1 in other places. `key` is the
    run's.
    """
    attack, attackers = algorithm.attack, None
    if attack is not None:
        attackers = draw_attackers(attack, key, state.contacted.shape[0])
    return Broadcast(
        algorithm.server.broadcast(state.server),
        rates.client,
        algorithm.aggregator.broadcast(state.aggregator),
        reporting,
        attackers,
    )
