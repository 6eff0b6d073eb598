"""Krum and Multi-Krum: the updates that lie closest to others.

Blanchard, El Mhamdi, Guerraoui, Stainer. "Machine Learning with Adversaries: Byzantine Tolerant
Gradient Descent". NeurIPS 2017.

    s_i = sum of |u_i - u_j|^2 over the n - f - 2 updates u_j closest to u_i
    u   = the u_i of the least s_i;   Multi-Krum: the mean of those of the q least

n are those who report, f of whom may be wrong; n >= 2 f + 3. Clients count alike.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates
from semanticfl_jax.algorithms.robust.distances import finite, mean_of, squared_distances
from semanticfl_jax.config.aggregation import KrumConfig, MultiKrumConfig
from semanticfl_jax.types import PyTree


def krum(settings: KrumConfig, context: object = None) -> Aggregator:
    """Build Krum; it needs all updates at once."""
    del context
    return _best("krum", settings.attackers, lambda count: 1)


def multi_krum(settings: MultiKrumConfig, context: object = None) -> Aggregator:
    """Build Multi-Krum; it needs all updates at once."""
    del context
    f, selected = settings.attackers, settings.selected

    def how_many(count: jax.Array) -> jax.Array:
        most = jnp.maximum(count - f, 1)  # fewer report than were asked where some drop out
        return jnp.minimum(selected, most) if selected else most

    return _best("multi_krum", f, how_many)


def _best(name: str, attackers: int, how_many) -> Aggregator:
    def finish(updates: Updates, key: jax.Array) -> PyTree:
        del key
        updates = finite(updates)
        scores = krum_scores(squared_distances(updates.update), updates.present, attackers)
        rank = jnp.argsort(jnp.argsort(scores))
        chosen = updates.present & (rank < how_many(jnp.sum(updates.present)))
        return mean_of(updates.update, chosen)

    return Aggregator(name, finish, needs_updates=True)


def krum_scores(distances: jax.Array, present: jax.Array, attackers: int) -> jax.Array:
    """Return s_i, float32 [m]; infinite for who is absent.

    Args:
      distances: |u_i - u_j|^2, [m, m].
      present: bool [m].
      attackers: f.
    """
    m = len(present)
    others = present[None, :] & ~jnp.eye(m, dtype=bool)
    sorted_ = jnp.sort(jnp.where(others, distances, jnp.inf), axis=1)
    near = jnp.maximum(jnp.sum(present) - attackers - 2, 1)
    taken = (jnp.arange(m) < near)[None, :] & jnp.isfinite(sorted_)
    scores = jnp.sum(jnp.where(taken, sorted_, 0.0), axis=1)
    return jnp.where(present, scores, jnp.inf)
