"""RFA: the weighted geometric median, by the smoothed Weiszfeld algorithm.

Pillutla, Kakade, Harchaoui. "Robust Aggregation for Federated Learning". IEEE Transactions on
Signal Processing, 2022.

    u  minimises  sum_i p_i |u - u_i|,   by   u <- sum_i b_i u_i / sum_i b_i,
    b_i = p_i / max(nu, |u - u_i|)

It begins with the weighted mean and takes `iterations` steps.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates
from semanticfl_jax.algorithms.robust.distances import finite
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.config.aggregation import GeometricMedianConfig
from semanticfl_jax.types import PyTree


def geometric_median(settings: GeometricMedianConfig, context: object = None) -> Aggregator:
    """Build the aggregator; it needs all updates at once."""
    del context

    def finish(updates: Updates, key: jax.Array) -> PyTree:
        del key
        updates = finite(updates)
        weights = jnp.where(updates.present, updates.weights, 0.0)

        def average(weights: jax.Array) -> PyTree:
            shares = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(jnp.float32).tiny)
            return jax.tree.map(lambda x: jnp.sum(rows(shares, x) * x, axis=0), updates.update)

        def step(_: jax.Array, center: PyTree) -> PyTree:
            squares = jax.tree.map(
                lambda x, c: jnp.sum(jnp.square(x - c[None]).reshape(len(x), -1), axis=1),
                updates.update,
                center,
            )
            distance = jnp.sqrt(sum(jax.tree.leaves(squares)))
            return average(weights / jnp.maximum(settings.smoothing, distance))

        return jax.lax.fori_loop(0, settings.iterations, step, average(weights))

    return Aggregator("geometric median", finish, needs_updates=True)
