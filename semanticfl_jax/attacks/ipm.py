"""IPM, inner product manipulation: attackers send the honest clients' mean backwards.

Xie, Koyejo, Gupta. "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
Manipulation". UAI 2019.

    u_i' = -scale (1 / n) sum of the n honest updates

They know what all others send. A small scale stays unseen by distances, a large one overturns a
mean.
"""

import jax

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.robust.distances import mean_of
from semanticfl_jax.attacks.base import Attack, attackers_of
from semanticfl_jax.config.attack import IPMConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def ipm(settings: IPMConfig, context: AlgorithmContext) -> Attack:
    """Build the attack."""

    def collude(updates: Updates, attackers: jax.Array) -> PyTree:
        honest = mean_of(updates.update, updates.present & ~attackers)
        return jax.tree.map(lambda x: -settings.scale * x, honest)

    return Attack("ipm", attackers_of(context), collude=collude)
