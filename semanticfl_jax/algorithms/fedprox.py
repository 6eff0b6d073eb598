"""FedProx: a quadratic pull to the model that was received.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith. "Federated Optimization in Heterogeneous Networks".
MLSys 2020.

    min_y  f_i(y) + (mu / 2) |y - x|^2

Server: FedAvg. State: none. The pull acts on trained parameters, not on running statistics, and as
a part of the loss it passes through the momentum.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, LossTerm, TermInputs
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import FedProxConfig
from semanticfl_jax.contexts import AlgorithmContext


def fedprox(settings: FedProxConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedProx; with mu = 0 it is FedAvg, bit for bit."""
    algorithm = fedavg(None, context)
    return algorithm.with_term(proximal_term(settings.mu)) if settings.mu > 0 else algorithm


def proximal_term(mu: float) -> LossTerm:
    """Return (mu / 2) |y - x|^2 over all trained parameters."""

    def loss(inputs: TermInputs) -> jax.Array:
        difference = jax.tree.map(jnp.subtract, inputs.trained, inputs.received.params)
        squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(difference)]
        return 0.5 * mu * sum(squares)

    return LossTerm(name="proximal", loss=loss)
