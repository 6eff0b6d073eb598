"""FedPer: the last layers stay with the clients, the base is averaged.

Arivazhagan, Aggarwal, Singh, Choudhary. "Federated Learning with Personalization Layers".
arXiv 1912.00818.

    client   min f_i(base, head_i) over both, from (base of x, own head)
    server   base' = sum_i p_i base_i

State: the head. Sent: the base alone. The server's head stays the initial one, so that its test
says little.
"""

import dataclasses

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import chosen_layers, keeping
from semanticfl_jax.config import FedPerConfig
from semanticfl_jax.contexts import AlgorithmContext


def fedper(settings: FedPerConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedPer; without layers of the clients' own it is FedAvg, bit for bit."""
    algorithm = fedavg(None, context)
    belongs = chosen_layers(settings.layers, context, "algorithm.fedper.layers")
    if belongs is None:
        return algorithm
    return dataclasses.replace(algorithm, client=keeping(belongs))
