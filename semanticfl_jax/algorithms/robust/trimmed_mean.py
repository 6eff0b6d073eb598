"""Trimmed mean: of every coordinate, the extreme values are left out.

Yin, Chen, Ramchandran, Bartlett. "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates". ICML 2018.

    u[k] = mean of u_i[k] without the f largest and the f smallest

Clients count alike, whatever their weights. Where fewer than 2 f + 1 are there, as many are left
out as leaves one or two (ours).
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates
from semanticfl_jax.algorithms.robust.distances import finite
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.config.aggregation import TrimmedMeanConfig
from semanticfl_jax.types import PyTree


def trimmed_mean(settings: TrimmedMeanConfig, context: object = None) -> Aggregator:
    """Build the aggregator; it needs all updates at once."""
    del context

    def finish(updates: Updates, key: jax.Array) -> PyTree:
        del key
        updates = finite(updates)
        count = jnp.sum(updates.present)
        cut = jnp.clip((count - 1) // 2, 0, settings.attackers)
        place = jnp.arange(len(updates.present))
        kept = (place >= cut) & (place < count - cut)

        def middle(x: jax.Array) -> jax.Array:
            x = jnp.sort(jnp.where(rows(updates.present, x), x, jnp.inf), axis=0)
            x = jnp.where(rows(kept, x), x, 0.0)
            return jnp.sum(x, axis=0) / jnp.maximum(jnp.sum(kept), 1)

        return jax.tree.map(middle, updates.update)

    return Aggregator("trimmed mean", finish, needs_updates=True)
