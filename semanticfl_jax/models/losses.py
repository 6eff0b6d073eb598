"""What losses on batches with padded rows are made of."""

import jax
import jax.numpy as jnp


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `values` [B] over rows where `mask` [B] is True; 0 where no row is."""
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def unit(x: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Scale rows of `x` [..., d] to length one; a zero row stays zero, with a zero gradient."""
    # Features after a ReLU can be exactly zero, where the direction has no gradient: the root is
    # kept away from zero, and the row out of the gradient.
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    valid = squared > epsilon**2
    return jnp.where(valid, x * jax.lax.rsqrt(jnp.where(valid, squared, 1.0)), 0.0)
