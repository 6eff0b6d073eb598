"""FedAvg: average the clients' models by their sample counts.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas. "Communication-Efficient Learning of Deep Networks
from Decentralized Data". AISTATS 2017.

    x' = x + eta_g sum_i (n_i / n) (y_i - x),   eta_g = 1

FedAvgM, FedAdam and FedYogi are FedAvg with another `server_optimizer` (server_optimizers.py).
"""

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.server_optimizers import server_optimizer
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.contexts import AlgorithmContext


def fedavg(settings: object, context: AlgorithmContext) -> Algorithm:
    """Return FedAvg; `server_learning_rate` other than 1 steps short of or beyond the average."""
    del settings
    name = context.config.algorithm.name
    return Algorithm(name=name, server=server_optimizer(context), weights=by_size)
