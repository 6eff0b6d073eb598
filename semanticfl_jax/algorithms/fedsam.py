"""FedSAM: local steps along the gradient at the worst point nearby, for flat minima.

Qu, Li, Duan, Liu, Tang, Lu. "Generalized Federated Learning via Sharpness Aware Minimization".
ICML 2022; the minimiser is that of Foret, Kleiner, Mobahi, Neyshabur, ICLR 2021.

    g = grad f(y),    y <- y - eta grad f( y + rho g / |g| )     on one batch

Server: FedAvg. State: none. Cost: a second forward and backward pass a step. The reported loss and
the running statistics are those at y; g is the gradient of the whole loss, without weight decay.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Descent,
    Finished,
    StepInputs,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.fedexp import squared_norm
from semanticfl_jax.config import FedSAMConfig
from semanticfl_jax.contexts import AlgorithmContext


def fedsam(settings: FedSAMConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedSAM; with rho = 0 it is FedAvg, bit for bit."""
    algorithm = fedavg(None, context)
    if settings.rho == 0:
        return algorithm

    def descend(inputs: StepInputs) -> Descent:
        (loss, statistics), gradient = inputs.value_and_grad(inputs.model)
        reach = settings.rho / jnp.maximum(jnp.sqrt(squared_norm(gradient)), 1e-12)
        worst = jax.tree.map(lambda y, g: y + reach * g, inputs.model.params, gradient)
        _, gradient = inputs.value_and_grad(inputs.model._replace(params=worst))
        return Descent(loss, statistics, gradient, inputs.own)

    client = ClientRule(finish=lambda trained: Finished(state=()), descend=descend)
    return dataclasses.replace(algorithm, client=client)
