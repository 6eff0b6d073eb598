"""How the clients' updates become one: a running sum, or a function of all of them.

    u_i = encode(u_i, b, sender_i)     for each client, last of all; b = broadcast(s)
    t = init(u)                        on each device, before its first client
    t = add(t, u_1 .. u_C)             for each chunk of C clients
    t = merge(t)                       over the devices
    u = finish(t, key)                 at the server;  u, s' = finish(t, key, s)  if it has a state

so that memory follows the chunk, not the cohort. An aggregator that needs the single updates
(`needs_updates`) has no totals: `finish` is given the updates side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms import trees
from semanticfl_jax.algorithms.transforms import BytesUp, nothing, unchanged
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


class Updates(NamedTuple):
    """The updates of several clients, side by side.

    Attributes:
      update: a `Model` of differences, as transformed, or as `encode` made it: arrays [m, ...].
      weights: float32 [m], the clients' p_i; 0 for clients that are absent.
      present: bool [m]; False for an empty place, and for a client that dropped out or has no
        data, whose update is zero and must not count.
      clients: int32 [m], their ids; -1 in empty places; None where nobody asks.
    """

    update: PyTree
    weights: jax.Array
    present: jax.Array
    clients: jax.Array | None = None


class Sender(NamedTuple):
    """Whose update is encoded.

    Attributes:
      client: int32 scalar, its id.
      weight: float32 scalar, its p_i.
      key: of the seed, the round and the client.
      round_key: of the seed and the round, the same for the whole cohort.
      cohort: int32 [places], the ids of all who report in this round; -1 in other places.
    """

    client: jax.Array
    weight: jax.Array
    key: jax.Array
    round_key: jax.Array
    cohort: jax.Array


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """How updates are aggregated.

    Attributes:
      name: for messages.
      finish: (totals, key) -> the aggregated update, a `Model` of differences; `key` depends on the
        seed and the round alone. If it `needs_updates`, it is given `Updates` instead of totals:
        those of the whole cohort, m = clients_per_round, in the order of the clients' ids.
      init: an update's shapes -> totals before the first client, a tree of arrays.
      add: (totals, `Updates` of a chunk) -> totals.
      merge: (totals, name of the mesh's axis) -> totals over all devices, equal on all of them, as
        `jax.lax.psum` makes them. Nothing checks that: totals of one device would be taken for all.
      needs_updates: whether it needs the single updates, which are then kept until the cohort is
        done; `init`, `add` and `merge` are not used.
      encode: (an update, what `broadcast` sent, `Sender`) -> what is added in its place, a tree of
        any form. None: the update as it is.
      start: initial `Model`, as far as it travels -> what the aggregator keeps between rounds.
        `finish` is then given it as a third argument, and returns the aggregated update and what is
        kept after the round.
      broadcast: state -> what clients receive of it in every round.
      figures: state after a round -> float scalars by name, for the round's row.
      bytes_up: (shapes of an update, bytes so far) -> bytes that an encoded update takes.
      bytes_down: that a client receives for it in a round, besides what is broadcast.
      needs_root: whether the server trains on the public split before the clients do, as a client
        would; `encode` is then given that update in the place of what `broadcast` sends.
      adds_noise: whether it must do so in a round in which nobody reports, too.
      weighted: whether its result grows with the weights, as a weighted sum does. Where clients
        that diverged are left out, such a result is divided by the weights that are left.
    """

    name: str
    finish: Callable[..., PyTree]
    init: Callable[[PyTree], PyTree] | None = None
    add: Callable[[PyTree, Updates], PyTree] | None = None
    merge: Callable[[PyTree, str], PyTree] | None = None
    needs_updates: bool = False
    encode: Callable[[PyTree, PyTree, Sender], PyTree] | None = None
    start: Callable[[PyTree], PyTree] | None = None
    broadcast: Callable[[PyTree], PyTree] = nothing
    figures: Callable[[PyTree], Mapping[str, jax.Array]] | None = None
    bytes_up: BytesUp = unchanged
    bytes_down: int = 0
    adds_noise: bool = False
    needs_root: bool = False
    weighted: bool = True

    def __post_init__(self):
        if not self.needs_updates and None in (self.init, self.add, self.merge):
            raise SemanticFLError(f"the aggregator {self.name} must have init, add and merge")


def mean(settings: object = None, context: object = None) -> Aggregator:
    """Build the weighted mean, a running sum; it has no settings.

    u = sum_i p_i u_i

    """
    del settings, context
    return Aggregator("mean", _as_they_are, zeros_like, _add_weighted, jax.lax.psum)


def zeros_like(update: PyTree) -> PyTree:
    """Return totals of zeros, in the form of an update."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), update)


def _add_weighted(totals: PyTree, updates: Updates) -> PyTree:
    def add(total: jax.Array, x: jax.Array) -> jax.Array:
        return total + jnp.sum(trees.rows(updates.weights, x) * x, axis=0)

    return jax.tree.map(add, totals, updates.update)


def _as_they_are(totals: PyTree, key: jax.Array) -> PyTree:
    del key
    return totals


def median(settings: object = None, context: object = None) -> Aggregator:
    """Build the coordinate-wise median, which a minority of wrong updates cannot move far.

    Yin, Chen, Ramchandran, Bartlett. "Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates". ICML 2018.

    Clients count alike, whatever their weights; of an even number of clients the two in the middle
    are averaged. A value that is not a number counts as one beyond all others.
    """
    del settings, context
    return Aggregator("median", _median, needs_updates=True)


def _median(updates: Updates, key: jax.Array) -> PyTree:
    del key
    count = jnp.sum(updates.present)

    def middle(x: jax.Array) -> jax.Array:
        # NaN is put last, so that those who are present come first.
        x = jnp.sort(jnp.where(trees.rows(updates.present, x), x, jnp.nan), axis=0)
        low, high = (
            jax.lax.dynamic_index_in_dim(x, index, keepdims=False)
            for index in ((count - 1) // 2, count // 2)
        )
        return 0.5 * (low + high)

    return jax.tree.map(middle, updates.update)
