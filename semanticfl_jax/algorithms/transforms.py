"""What clients do to their updates before they send them: a chain of transforms.

A transform is a pair `(init, apply)` as in optax, of one client:

    s_0      = init(u)                 before the client's first round
    u', s'   = apply(u, s, key)        in every round in which the client trains

The update u is a `Model` of differences: parameters and running statistics alike, because nothing
that leaves a client goes around its transforms. What the client rule does not upload is not in it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from semanticfl_jax.config.aggregation import ClipConfig
from semanticfl_jax.types import PyTree


class Apply(Protocol):
    """Changes one client's update."""

    def __call__(self, update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Return the update that goes on, and the client's new state of this transform.

        Args:
          update: a `Model` of float32 arrays.
          state: as `init` or the client's last `apply` returned it.
          key: depends on the seed, the round, the client and the transform's place alone.

        Returns:
          A tree of the same structure and shapes as `update`, and one as `state`.
        """


class Init(Protocol):
    """Makes one client's state of a transform."""

    def __call__(self, update: PyTree) -> PyTree:
        """Return the state before the client's first round; `update` is one of zeros."""


class BytesUp(Protocol):
    """Counts what a transformed update takes on its way."""

    def __call__(self, update: PyTree, size: int) -> int:
        """Return the bytes that travel.

        Args:
          update: the shapes and types of an update.
          size: bytes that travelled without this transform.
        """


def nothing(update: PyTree) -> PyTree:
    """Return the state of what keeps none."""
    del update
    return ()


def unchanged(update: PyTree, size: int) -> int:
    """Return `size`."""
    del update
    return size


@dataclasses.dataclass(frozen=True)
class UpdateTransform:
    """What a client does to its update before it is sent: clip, noise, quantise, mask.

    Attributes:
      name: for messages.
      apply: (update, state, key) -> (update, state).
      init: update of zeros -> the state that a client keeps of it; by default clients keep nothing.
      bytes_up: (shapes of an update, bytes so far) -> bytes; by default as many.
    """

    name: str
    apply: Apply
    init: Init = nothing
    bytes_up: BytesUp = unchanged


def clip(settings: ClipConfig, context: object = None) -> UpdateTransform:
    """Build the transform that shortens updates to an L2 norm of at most `max_norm`.

        u' = u min(1, max_norm / |u|)

    The norm is that of the whole update, running statistics included, so that it bounds what one
    client can do to an average of all that is sent.
    """
    del context
    norm = settings.max_norm

    def apply(update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, Any]:
        del key
        return clipped(update, norm)[0], state

    return UpdateTransform("clip", apply)


def clipped(update: PyTree, norm: jax.Array | float) -> tuple[PyTree, jax.Array]:
    """Return an update scaled to an L2 norm of at most `norm`, and the norm that it had.

    One with a value that is not finite becomes zero: it would go around the bound.
    """
    length = jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(update)))
    finite = jnp.isfinite(length)
    scale = norm / jnp.maximum(length, norm)
    return jax.tree.map(lambda x: jnp.where(finite, scale * x, 0.0), update), length
