"""The clients of one device, chunk by chunk: two ways to train a chunk, and the loop over chunks.

    together        under `vmap`, where all clients take as many steps; a chunk of one client
                    without, for which a loop over clients needs no batched program
    narrowing       side by side in a chunk that narrows as clients end (`side_by_side`)

All give the numbers of clients trained alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import LocalResult, LocalTraining
from semanticfl_jax.federated.side_by_side import train_side_by_side
from semanticfl_jax.randomness import client_key
from semanticfl_jax.types import PyTree


class Places(NamedTuple):
    """The places of a cohort, or of a device's or a chunk's part of it.

    Attributes:
      clients: int32 [places], client ids; -1 in empty places.
      weights: float32 [places], the clients' p_i; 0 in empty places.
      states: what the clients keep, stacked, [places, ...]; any client's in empty places.
    """

    clients: jax.Array
    weights: jax.Array
    states: PyTree


class TrainChunk(Protocol):
    """Trains the clients of a chunk."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        clients: jax.Array,
        states: PyTree,
        key: jax.Array,
    ) -> tuple[LocalResult, jax.Array]:
        """Train clients int32 [C].

        Args:
          received: the server's model.
          broadcast: what the server sends besides.
          shared: `Algorithm.sent_once`.
          data: the clients' images.
          clients: their ids; -1 in empty places. If ragged, in the order that `by_steps` gives.
          states: those of the client rule, stacked, [C, ...].
          key: of the round, in the stream `LOCAL_TRAINING`.

        Returns:
          What each client did, stacked; int32 scalar: training steps computed, those of clients
          that were done while others trained included.
        """


def make_train_chunk(
    local_training: LocalTraining, chunk: int, *, steps: int | None = None, ragged: bool = False
) -> TrainChunk:
    """Build the training of a chunk.

    Args:
      local_training: of one client.
      chunk: clients in it, C.
      steps: of every client, where they are known (`known_steps`).
      ragged: whether clients may take different numbers of steps.
    """

    def together(received, broadcast, shared, data, clients, states, key):
        def alone(client, state):
            own_key = client_key(key, client)
            return local_training.alone(
                received, broadcast, shared, data, client, state, own_key, steps
            )

        trained = for_each(alone, chunk)(clients, states)
        return trained, trained.steps[0] if chunk == 1 else jnp.sum(trained.steps)

    def narrowing(received, broadcast, shared, data, clients, states, key):
        return train_side_by_side(
            local_training, received, broadcast, shared, data, clients, states, key
        )

    return narrowing if ragged and chunk > 1 else together


def for_each(function: Callable[..., PyTree], chunk: int) -> Callable[..., PyTree]:
    """Return a function of one client as a function of `chunk`, whose arrays lead with [chunk]."""
    if chunk > 1:
        return jax.vmap(function)

    def of_one(*stacked):
        one = function(*jax.tree.map(lambda x: x[0], stacked))
        return jax.tree.map(lambda x: x[None], one)

    return of_one


class DoChunk(Protocol):
    """Does a chunk's part of a round."""

    def __call__(self, totals: PyTree, places: Places) -> tuple[PyTree, PyTree]:
        """Return the totals with this chunk's added, and what is kept of each place, stacked."""


def scan_chunks(
    do_chunk: DoChunk, totals: PyTree, places: Places, chunk: int, order: jax.Array | None = None
) -> tuple[PyTree, PyTree]:
    """Do one chunk after another.

    Args:
      do_chunk: what is done with each.
      totals: before the first.
      places: of this device, a multiple of `chunk`.
      chunk: places of a chunk, C.
      order: int32 [places], in which the places are cut into chunks; None: as they are.

    Returns:
      The totals after the last chunk, and what is kept of each place, [places, ...], as they were.
    """
    if order is not None:
        places = jax.tree.map(lambda x: x[order], places)
    chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), places)
    totals, kept = jax.lax.scan(do_chunk, totals, chunks)
    kept = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)
    if order is not None:
        back = jnp.argsort(order)
        kept = jax.tree.map(lambda x: x[back], kept)
    return totals, kept
