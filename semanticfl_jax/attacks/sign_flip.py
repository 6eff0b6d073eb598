"""Sign flip: attackers send their update backwards.

Li, Xu, Chen, Giannakis, Ling. "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed
Learning from Heterogeneous Datasets". AAAI 2019.

    u_i' = -scale u_i
"""

import jax

from semanticfl_jax.attacks.base import Attack, attackers_of
from semanticfl_jax.config.attack import SignFlipConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def sign_flip(settings: SignFlipConfig, context: AlgorithmContext) -> Attack:
    """Build the attack."""

    def forge(update: PyTree, key: jax.Array) -> PyTree:
        del key
        return jax.tree.map(lambda x: -settings.scale * x, update)

    return Attack("sign_flip", attackers_of(context), forge=forge)
