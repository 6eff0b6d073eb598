"""FedBN: normalisation layers stay with the clients, all else is averaged.

Li, Jiang, Zhang, Kamp, Dou. "FedBN: Federated Learning on Non-IID Features via Local Batch
Normalization". ICLR 2021.

    client   trains from (shared part of x, own scales, shifts and running statistics)
    server   x' = sum_i p_i y_i   of the shared part

State: the normalisation layers and their running statistics. Which layers those are is told by
their names (ours): "norm" is in the names of this project's and of Flax's own, and all running
statistics are kept. The server's own layers stay the initial ones, and are what its test uses.
"""

import dataclasses

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import keeping, paths
from semanticfl_jax.config import FedBNConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError


def fedbn(settings: FedBNConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedBN; a model without normalisation layers is refused."""
    names = [name.lower() for name in settings.names]

    def belongs(path: str) -> bool:
        if path.startswith("batch_stats/"):
            return True
        layers = path.lower().split("/")[2:-1]
        of_network = path.startswith("params/model/")
        return of_network and any(name in layer for name in names for layer in layers)

    if not any(map(belongs, paths(context))):
        raise SemanticFLError(
            f"algorithm.name=fedbn needs normalisation layers, and the model has none whose name "
            f"contains {' or '.join(map(repr, names)) or 'anything of fedbn.names'}"
        )
    return dataclasses.replace(fedavg(None, context), client=keeping(belongs))
