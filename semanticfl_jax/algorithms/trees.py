"""Small functions of trees of arrays."""

import jax
import jax.numpy as jnp

from semanticfl_jax.types import PyTree


def where(condition: jax.Array, chosen: PyTree, otherwise: PyTree) -> PyTree:
    """Return one of two trees by a bool scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)


def rows(values: jax.Array, like: jax.Array) -> jax.Array:
    """Return [m] as [m, 1, ...], to go with an array [m, ...]."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))
