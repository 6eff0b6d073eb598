"""Federated algorithms, by the name the configuration calls them."""

import dataclasses
from collections.abc import Callable

from semanticfl_jax.algorithms.base import Algorithm, LossTerm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.fedprox import fedprox
from semanticfl_jax.algorithms.scaffold import scaffold
from semanticfl_jax.algorithms.semanticfl import guidance_term
from semanticfl_jax.algorithms.weights import by_size, uniform
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.semantics.anchors import Anchors

ALGORITHMS: dict[str, Callable[[ExperimentConfig], Algorithm]] = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fedavgm": fedavg,
    "fedadam": fedavg,
    "fedyogi": fedavg,
    "semanticfl": fedavg,
}

__all__ = ["ALGORITHMS", "Algorithm", "LossTerm", "guidance_term", "make_algorithm"]


def make_algorithm(
    config: ExperimentConfig, anchors: Anchors | None = None, feature_dim: int = 0
) -> Algorithm:
    """The algorithm that a configuration means, with its weights and its guidance.

    Args:
      config: names the algorithm; `algorithm.weights` other than "auto" replace its own.
      anchors: of a guided run.
      feature_dim: width of the clients' features.
    """
    algorithm = ALGORITHMS[config.algorithm.name](config)
    weights = config.algorithm.weights
    if weights != "auto":
        chosen = {"size": by_size, "uniform": uniform}[weights]
        algorithm = dataclasses.replace(algorithm, weights=chosen)
    if config.guidance.enabled and anchors is not None:
        term = guidance_term(anchors, config.guidance, feature_dim)
        algorithm = algorithm.with_term(term) if term else algorithm
    return algorithm
