"""ALIE, a little is enough: attackers stay within the spread of the honest updates.

Baruch, Baruch, Goldberg. "A Little Is Enough: Circumventing Defenses For Distributed Learning".
NeurIPS 2019.

    u_i'[k] = mean[k] - z std[k]   of the honest clients' updates

    z = Phi^-1( (n - f - s) / (n - f) ),   s = floor(n / 2 + 1) - f

for n clients that report, f of whom attack: as far as still has a majority of supporters. They know
what all others send; its authors' attackers estimate it from their own (`scale` 0 is that z).
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.robust.distances import mean_of
from semanticfl_jax.attacks.base import Attack, attackers_of
from semanticfl_jax.config.attack import ALIEConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def alie(settings: ALIEConfig, context: AlgorithmContext) -> Attack:
    """Build the attack."""

    def collude(updates: Updates, attackers: jax.Array) -> PyTree:
        honest = updates.present & ~attackers
        mean = mean_of(updates.update, honest)
        squares = jax.tree.map(lambda x, mean: jnp.square(x - mean[None]), updates.update, mean)
        variance = mean_of(squares, honest)
        z = settings.scale or _most(jnp.sum(updates.present), jnp.sum(attackers))
        return jax.tree.map(lambda mean, var: mean - z * jnp.sqrt(var), mean, variance)

    return Attack("alie", attackers_of(context), collude=collude)


def _most(count: jax.Array, attackers: jax.Array) -> jax.Array:
    """Return z for n and f, at least 0; a share that is no probability is cut (ours)."""
    supporters = count // 2 + 1 - attackers
    honest = jnp.maximum(count - attackers, 1)
    share = jnp.clip((honest - supporters) / honest, 0.5, 0.999)
    return jax.scipy.special.ndtri(share)
