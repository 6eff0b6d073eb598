"""FedAvg: average the clients' models by their sample counts.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas. "Communication-Efficient Learning of Deep Networks
from Decentralized Data". AISTATS 2017.

    x' = x + eta_g sum_i (n_i / n) (y_i - x),   eta_g = 1
"""

import optax

from semanticfl_jax.algorithms.base import Algorithm, by_size
from semanticfl_jax.config import AlgorithmConfig


def fedavg(config: AlgorithmConfig) -> Algorithm:
    """FedAvg; `server_learning_rate` other than 1 steps short of or beyond the average."""
    return Algorithm(
        name=config.name,
        weights=by_size,
        server_optimizer=optax.sgd(config.server_learning_rate),
    )
