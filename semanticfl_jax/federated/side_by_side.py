"""Clients of a chunk, trained side by side without waiting long for one another.

All clients of a chunk take their steps together, under `vmap`; those that are done would only pad
the others' steps. So, with the clients in order of their steps, the chunk is cut in half as soon as
half of it is enough for those that still train: 16 clients wide, then 8, 4, 2, 1. Each width is one
more copy of the training step to compile. The numbers are those of clients trained alone.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.federated.local_step import Broadcast, Plan
from semanticfl_jax.federated.local_training import LocalResult, LocalTraining
from semanticfl_jax.randomness import client_key
from semanticfl_jax.types import PyTree


def by_steps(
    local_training: LocalTraining,
    broadcast: Broadcast,
    data: FederatedDataset,
    clients: jax.Array,
    states: PyTree,
    key: jax.Array,
) -> jax.Array:
    """Return the order of `clients` int32 [places] by their steps, the most first: int32 [places].

    Steps, not sizes: stragglers do fewer, and clients that dropped out none.
    """
    plans = _plans(local_training, broadcast, data, clients, states, key)
    return jnp.argsort(-plans.steps, stable=True)


def _plans(local_training, broadcast, data, clients, states, key) -> Plan:
    """Return what each client will do, stacked; arguments as of `by_steps`."""

    def plan_of(client, state):
        return local_training.plan(broadcast, data, client, state, client_key(key, client))

    return jax.vmap(plan_of)(clients, states)


def train_side_by_side(
    local_training: LocalTraining,
    received: Model,
    broadcast: Broadcast,
    shared: PyTree,
    data: FederatedDataset,
    clients: jax.Array,
    states: PyTree,
    key: jax.Array,
) -> tuple[LocalResult, jax.Array]:
    """Train clients int32 [C], in the order that `by_steps` gives.

    Args:
      local_training: of one client.
      received: the server's model.
      broadcast: what the server sends besides.
      shared: what clients received once.
      data: the clients' images.
      clients: client ids; -1 in empty places.
      states: the client rule's, stacked.
      key: of the round.

    Returns:
      What each did, stacked; int32 scalar: training steps computed, those of clients that were done
      while others trained included.
    """

    def advance(plan, progress, until):
        return local_training.advance(received, broadcast, shared, data, plan, progress, until)

    plans = _plans(local_training, broadcast, data, clients, states, key)

    def start(plan):
        return local_training.start(received, broadcast, shared, data, plan)

    under_way = jax.vmap(start)(plans)
    width, left, done, computed = len(clients), plans, [], 0 * plans.steps[0]
    while width:
        half = width // 2
        # When the first client beyond the half is done, the half is enough; one goes to its end.
        until = left.steps[half]
        before = under_way.index[0]
        under_way = jax.vmap(advance, (0, 0, None))(left, under_way, until)
        computed += width * (under_way.index[0] - before)
        done.append(jax.tree.map(lambda x, half=half: x[half:], under_way))
        left, under_way = jax.tree.map(lambda x, half=half: x[:half], (left, under_way))
        width = half
    progress = jax.tree.map(lambda *parts: jnp.concatenate(parts), *reversed(done))
    return jax.vmap(local_training.finish)(plans, progress), computed
