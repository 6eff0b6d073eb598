"""Weights of the clients' updates in a round's average.

Each is (sizes int32 [m], label_counts int32 [m, K]) -> float32 [m] that sum to one, over the places
of a cohort; size 0 marks an empty place, or a client without data, and gets weight 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Weights = Callable[[jax.Array, jax.Array], jax.Array]


def by_size(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
    """Weigh in proportion to the clients' sample counts (McMahan et al., AISTATS 2017)."""
    del label_counts
    sizes = sizes.astype(jnp.float32)
    return sizes / jnp.sum(sizes)


def uniform(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
    """Weigh all participants alike."""
    del label_counts
    present = (sizes > 0).astype(jnp.float32)
    return present / jnp.sum(present)
