"""Bulyan: Krum chooses updates one after another, and a trimmed mean combines them.

El Mhamdi, Guerraoui, Rouault. "The Hidden Vulnerability of Distributed Learning in Byzantium". ICML
2018.

    S    of theta = n - 2 f updates, each chosen by Krum among those that are left
    u[k] the mean of the beta = theta - 2 f values u_i[k], i in S, closest to their median

n are those who report, f of whom may be wrong; n >= 4 f + 3. Clients count alike. Where fewer
report, at least one update is chosen, and one value (ours).
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates
from semanticfl_jax.algorithms.robust.distances import finite, squared_distances
from semanticfl_jax.algorithms.robust.krum import krum_scores
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.config.aggregation import BulyanConfig
from semanticfl_jax.types import PyTree


def bulyan(settings: BulyanConfig, context: object = None) -> Aggregator:
    """Build the aggregator; it needs all updates at once."""
    del context
    f = settings.attackers

    def finish(updates: Updates, key: jax.Array) -> PyTree:
        del key
        updates = finite(updates)
        count = jnp.sum(updates.present)
        theta = jnp.maximum(count - 2 * f, jnp.minimum(count, 1))
        chosen = _choose(squared_distances(updates.update), updates.present, f, theta)
        beta = jnp.maximum(theta - 2 * f, jnp.minimum(theta, 1))
        return jax.tree.map(lambda x: _near_median(x, chosen, theta, beta), updates.update)

    return Aggregator("bulyan", finish, needs_updates=True)


def _choose(
    distances: jax.Array, present: jax.Array, attackers: int, theta: jax.Array
) -> jax.Array:
    """Return who is chosen, bool [m]: `theta`, each the best of those that are left."""

    def choose(_: jax.Array, chosen: jax.Array) -> jax.Array:
        scores = krum_scores(distances, present & ~chosen, attackers)
        return chosen.at[jnp.argmin(scores)].set(True)

    return jax.lax.fori_loop(0, theta, choose, jnp.zeros_like(present))


def _near_median(x: jax.Array, chosen: jax.Array, theta: jax.Array, beta: jax.Array) -> jax.Array:
    """Return the mean of the `beta` values, of `theta` chosen ones, closest to their median."""
    ordered = jnp.sort(jnp.where(rows(chosen, x), x, jnp.inf), axis=0)
    low, high = (
        jax.lax.dynamic_index_in_dim(ordered, jnp.maximum(index, 0), keepdims=False)
        for index in ((theta - 1) // 2, theta // 2)
    )
    median = 0.5 * (low + high)
    away = jnp.where(rows(chosen, x), jnp.abs(x - median[None]), jnp.inf)
    nearest = jnp.take_along_axis(x, jnp.argsort(away, axis=0), axis=0)
    kept = jnp.arange(len(x)) < beta
    return jnp.sum(jnp.where(rows(kept, x), nearest, 0.0), axis=0) / jnp.maximum(beta, 1)
