"""Federated algorithms, by the name the configuration calls them."""

from collections.abc import Callable

from semanticfl_jax.algorithms.base import Algorithm, LossTerm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.semanticfl import guidance_term, semanticfl
from semanticfl_jax.config import AlgorithmConfig

ALGORITHMS: dict[str, Callable[[AlgorithmConfig], Algorithm]] = {
    "fedavg": fedavg,
    "semanticfl": semanticfl,
}

__all__ = ["ALGORITHMS", "Algorithm", "LossTerm", "guidance_term"]
