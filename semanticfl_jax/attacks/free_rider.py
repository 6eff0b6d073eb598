"""Free-riders: they receive the model and send it back, with some noise to look as if trained.

Fraboni, Vidal, Lorenzi. "Free-rider Attacks on Model Aggregation in Federated Learning". AISTATS
2021.

    u_i' = N(0, spread^2 I);   spread 0 is the plain free-rider
"""

import jax

from semanticfl_jax.attacks.base import Attack, attackers_of, noise_like
from semanticfl_jax.config.attack import FreeRiderConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def free_rider(settings: FreeRiderConfig, context: AlgorithmContext) -> Attack:
    """Build the attack."""

    def forge(update: PyTree, key: jax.Array) -> PyTree:
        return noise_like(key, update, settings.spread)

    return Attack("free_rider", attackers_of(context), forge=forge)
