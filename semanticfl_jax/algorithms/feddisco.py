"""FedDisco: FedAvg whose weights heed how far a client's labels are from uniform.

Ye, Xu, Wang, Xu, Chen, Wang. "FedDisco: Federated Learning with Discrepancy-Aware Collaboration".
ICML 2023. The weights are `weights.disco`; `algorithm.weights=disco` gives them to any algorithm.
Sent: each client's label counts, once.
"""

import dataclasses

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.weights import disco
from semanticfl_jax.config import AlgorithmConfig
from semanticfl_jax.contexts import AlgorithmContext


def feddisco(settings: object, context: AlgorithmContext) -> Algorithm:
    """FedDisco; where discrepancies and sizes are equal it is FedAvg."""
    return with_disco(fedavg(settings, context), context.config.algorithm)


def with_disco(algorithm: Algorithm, config: AlgorithmConfig) -> Algorithm:
    """`algorithm` with FedDisco's weights."""
    settings = config.feddisco
    return dataclasses.replace(
        algorithm, weights=disco(settings.a, settings.b), sends_label_counts=True
    )
