"""Federated algorithms, by the name the configuration calls them."""

import dataclasses
from collections.abc import Callable

from semanticfl_jax.algorithms.base import Algorithm, LossTerm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.fedcda import fedcda
from semanticfl_jax.algorithms.feddifrc import feddifrc_term
from semanticfl_jax.algorithms.feddisco import feddisco, with_disco
from semanticfl_jax.algorithms.feddyn import feddyn
from semanticfl_jax.algorithms.fednova import fednova
from semanticfl_jax.algorithms.fedprox import fedprox
from semanticfl_jax.algorithms.fedrcl import fedrcl
from semanticfl_jax.algorithms.moon import moon
from semanticfl_jax.algorithms.scaffold import scaffold
from semanticfl_jax.algorithms.semanticfl import guidance_term
from semanticfl_jax.algorithms.weights import by_size, uniform
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.modality import draw_modalities
from semanticfl_jax.semantics.anchors import Anchors

ALGORITHMS: dict[str, Callable[[ExperimentConfig], Algorithm]] = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "moon": moon,
    "fedrcl": fedrcl,
    "feddisco": feddisco,
    "fedcda": fedcda,
    "feddifrc": fedavg,  # with `feddifrc_term`
    "fednova": fednova,
    "feddyn": feddyn,
    "fedavgm": fedavg,
    "fedadam": fedavg,
    "fedyogi": fedavg,
    "semanticfl": fedavg,  # with `guidance_term`
}

__all__ = ["ALGORITHMS", "Algorithm", "LossTerm", "guidance_term", "make_algorithm"]


def make_algorithm(
    config: ExperimentConfig, anchors: Anchors | None = None, feature_dim: int = 0
) -> Algorithm:
    """The algorithm that a configuration means, with its weights and its guidance.

    Args:
      config: names the algorithm; `algorithm.weights` other than "auto" replace its own.
      anchors: of a run whose `uses_anchors` is true; None leaves out the terms that need them.
      feature_dim: width of the clients' features.
    """
    algorithm = ALGORITHMS[config.algorithm.name](config)
    weights = config.algorithm.weights
    if weights == "disco":
        algorithm = with_disco(algorithm, config)
    elif weights != "auto":
        chosen = {"size": by_size, "uniform": uniform}[weights]
        algorithm = dataclasses.replace(algorithm, weights=chosen, sends_label_counts=False)
    terms = []
    if anchors is not None and config.algorithm.name == "feddifrc":
        terms.append(feddifrc_term(anchors, config.algorithm.feddifrc, feature_dim))
    if anchors is not None and config.guidance.enabled:
        holders = draw_modalities(config.modality, config.num_clients, config.seed)
        terms.append(guidance_term(anchors, config.guidance, feature_dim, holders))
    for term in terms:
        algorithm = algorithm.with_term(term) if term else algorithm
    return algorithm
