"""Gaussian: attackers send noise alone.

Blanchard, El Mhamdi, Guerraoui, Stainer. "Machine Learning with Adversaries". NeurIPS 2017.

    u_i' = N(0, spread^2 I)
"""

import jax

from semanticfl_jax.attacks.base import Attack, attackers_of, noise_like
from semanticfl_jax.config.attack import GaussianConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def gaussian(settings: GaussianConfig, context: AlgorithmContext) -> Attack:
    """Build the attack."""

    def forge(update: PyTree, key: jax.Array) -> PyTree:
        return noise_like(key, update, settings.spread)

    return Attack("gaussian", attackers_of(context), forge=forge)
