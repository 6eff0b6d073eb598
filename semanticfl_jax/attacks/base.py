"""What an attack is: what some clients, drawn by the seed, do in place of what they should.

    Poison   changes a batch before the client learns from it        label flip, backdoor
    Forge    changes the client's update, after all its transforms   sign flip, Gaussian, free-rider
    Collude  changes the updates of all attackers of a cohort        ALIE, IPM

Attackers have no transforms to obey, but what the server does with an update (`Aggregator.encode`)
they cannot avoid. What colludes needs all updates of a round at once, whatever the aggregator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp

from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.randomness import Stream, stream_key
from semanticfl_jax.types import PyTree

if TYPE_CHECKING:
    from semanticfl_jax.algorithms.aggregators import Updates
    from semanticfl_jax.data.federated import Batch


class Poison(Protocol):
    """Changes what an attacker learns from."""

    def __call__(self, batch: Batch) -> Batch:
        """Return a batch of the same shapes and types; for those of its images see `Batch`."""


class Forge(Protocol):
    """Changes what an attacker sends."""

    def __call__(self, update: PyTree, key: jax.Array) -> PyTree:
        """Return an update of the same form; the key is of the seed, the round and the client."""


class Collude(Protocol):
    """Changes what all attackers of a cohort send."""

    def __call__(self, updates: Updates, attackers: jax.Array) -> PyTree:
        """Return what each attacker sends, one update that replaces those of all.

        Args:
          updates: of the whole cohort, honest ones, [m, ...].
          attackers: bool [m], those who attack and are present.
        """


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack and how many do it.

    Attributes:
      name: as the configuration calls it.
      count: of all clients.
      poison: of batches; None: they stay.
      forge: of updates; None: they stay.
      collude: of all attackers' updates together; None: each is on its own.
      trigger: images uint8 [n, H, W, 3] -> the same with a trigger; None: there is none.
      target: the class that the trigger stands for.
    """

    name: str
    count: int
    poison: Poison | None = None
    forge: Forge | None = None
    collude: Collude | None = None
    trigger: Callable[[jax.Array], jax.Array] | None = None
    target: int = 0


def attackers_of(context: AlgorithmContext) -> int:
    """Return how many clients attack: `attack.share` of all, rounded."""
    return context.config.attack.count(context.num_clients)


def draw_attackers(attack: Attack, key: jax.Array, num_clients: int) -> jax.Array:
    """Draw who attacks, bool [N].

    In the round and not when it is built, so that runs that differ in their seeds have one program.

    Args:
      attack: how many there are.
      key: the run's.
      num_clients: N.
    """
    return jax.random.permutation(stream_key(key, Stream.ATTACKERS), num_clients) < attack.count


def among(attackers: jax.Array, clients: jax.Array) -> jax.Array:
    """Return whether clients attack, bool in the shape of their ids; -1 and N do not."""
    return jnp.append(attackers, False)[clients]


def noise_like(key: jax.Array, tree: PyTree, spread: float) -> PyTree:
    """Return N(0, spread^2) in the form of a tree of float32 arrays."""
    leaves, form = jax.tree.flatten(tree)
    drawn = [
        spread * jax.random.normal(jax.random.fold_in(key, index), x.shape, x.dtype)
        for index, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(form, drawn)
