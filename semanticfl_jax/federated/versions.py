"""The last versions of the server's model, for clients that began to train some rounds ago.

A ring of H models, stacked: version v, the model after v steps of the server, is in slot v mod H.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.federated.arrivals import Arrivals
from semanticfl_jax.types import PyTree

if TYPE_CHECKING:
    from semanticfl_jax.federated.chunks import Places
    from semanticfl_jax.federated.local_step import Broadcast


def first_versions(model: Model, count: int) -> PyTree:
    """Return the ring before the first round, all of one model; () if `count` is 0."""
    if count == 0:
        return ()
    return jax.tree.map(lambda x: jnp.repeat(x[None], count, axis=0), model)


def with_version(ring: PyTree, model: Model, version: jax.Array) -> PyTree:
    """Return the ring with the model that is `version`, in place of the oldest; () stays."""
    return jax.tree.map(lambda kept, x: kept.at[version % len(kept)].set(x), ring, model)


def received_by(received: PyTree, slot: jax.Array | None) -> Model:
    """Return the model that a client received: of its slot, or `received` itself without one."""
    if slot is None:
        return received
    return jax.tree.map(lambda ring: ring[slot], received)


def begun_before(
    arrivals: Arrivals, number: jax.Array, broadcast: Broadcast, places: Places, num_clients: int
) -> tuple[Broadcast, Places]:
    """Return what clients were sent, and their places, where each began in a round of its own.

    Args:
      arrivals: of the run.
      number: of the round in which they report, int32 scalar.
      broadcast: what the server sends; which of its models each client received is added.
      places: of those who report; their weights are multiplied by what staleness leaves of them.
      num_clients: N.
    """
    clients = jnp.asarray(arrivals.clients)[number]
    began = number - jnp.asarray(arrivals.staleness)[number]
    slots = jnp.zeros(num_clients, jnp.int32).at[clients].set(began % arrivals.versions)
    scales = jnp.zeros(num_clients).at[clients].set(jnp.asarray(arrivals.weights)[number])
    weights = scales[places.clients] * places.weights
    return broadcast._replace(slots=slots), places._replace(weights=weights)


def figures_of(arrivals: Arrivals, number: jax.Array) -> dict[str, jax.Array]:
    """Return `clock` and mean `staleness` of round `number`, for its row."""
    stale = jnp.asarray(arrivals.staleness)[number].astype(jnp.float32)
    return {"clock": jnp.asarray(arrivals.clock)[number], "staleness": jnp.mean(stale)}
