"""The last versions of the server's model, for clients that began to train some rounds ago.

A ring of H models, stacked: version v, the model after v steps of the server, is in slot v mod H.

An update is the difference to the model that a client received, but for running statistics, which
are averages and no sums of steps: their differences are to the server's newest (ours). So they move
towards the client's, by its weight; by differences to old ones they would move there once for every
report, and variances below zero.
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
      broadcast: what the server sends; which of its models each client received, and which is the
        newest, is added.
      places: of those who report; their weights are multiplied by what staleness leaves of them.
      num_clients: N.
    """
    clients = jnp.asarray(arrivals.clients)[number]
    began = number - jnp.asarray(arrivals.staleness)[number]
    slots = jnp.zeros(num_clients, jnp.int32).at[clients].set(began % arrivals.versions)
    scales = jnp.zeros(num_clients).at[clients].set(jnp.asarray(arrivals.weights)[number])
    weights = scales[places.clients] * places.weights
    broadcast = broadcast._replace(slots=slots, newest=number % arrivals.versions)
    return broadcast, places._replace(weights=weights)


def difference(model: Model, received: Model, kept: PyTree, newest: jax.Array | None) -> Model:
    """Return the update of a client: how its model differs from what the server sent, or has.

    Args:
      model: as trained.
      received: by the client.
      kept: the models that the server keeps, stacked; not used where rounds are synchronous.
      newest: which of them it has now, int32 scalar; None: the received one.
    """
    update = jax.tree.map(jnp.subtract, model, received)
    if newest is None:
        return update
    now = received_by(kept.batch_stats, newest)
    return update._replace(batch_stats=jax.tree.map(jnp.subtract, model.batch_stats, now))


def figures_of(arrivals: Arrivals, number: jax.Array) -> dict[str, jax.Array]:
    """Return `clock` and mean `staleness` of round `number`, for its row."""
    stale = jnp.asarray(arrivals.staleness)[number].astype(jnp.float32)
    return {"clock": jnp.asarray(arrivals.clock)[number], "staleness": jnp.mean(stale)}
