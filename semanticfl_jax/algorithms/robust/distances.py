"""What robust aggregators share: distances between updates, and means of a part of them."""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.types import PyTree


def finite(updates: Updates) -> Updates:
    """Return the updates with those absent that hold a value that is not finite, and zero.

    A server can see that such an update is wrong; it would spoil every sum.
    """
    whole = [
        jnp.all(jnp.isfinite(x.reshape(len(x), -1)), axis=1)
        for x in jax.tree.leaves(updates.update)
    ]
    present = jnp.all(jnp.stack([updates.present, *whole]), axis=0)
    kept = jax.tree.map(lambda x: jnp.where(rows(present, x), x, 0.0), updates.update)
    return updates._replace(update=kept, present=present)


def squared_distances(update: PyTree) -> jax.Array:
    """Return |u_i - u_j|^2, float32 [m, m], of updates [m, ...].

    Differences are squared, not expanded: the square of a small one of two large updates would
    drown in rounding.
    """

    def to_one(i: jax.Array) -> jax.Array:
        return sum(
            jnp.sum(jnp.square(x - x[i][None]).reshape(len(x), -1), axis=1)
            for x in jax.tree.leaves(update)
        )

    return jax.lax.map(to_one, jnp.arange(len(jax.tree.leaves(update)[0])))


def mean_of(update: PyTree, chosen: jax.Array) -> PyTree:
    """Return the mean of the chosen updates, bool [m]; zero if there is none."""
    share = chosen.astype(jnp.float32) / jnp.maximum(jnp.sum(chosen), 1)
    return jax.tree.map(lambda x: jnp.sum(rows(share, x) * x, axis=0), update)
