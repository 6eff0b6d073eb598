"""Federated algorithms, one file each; the registry knows them by name (config/baselines.py)."""

import dataclasses

from semanticfl_jax.algorithms.aggregators import Aggregator, mean
from semanticfl_jax.algorithms.base import Algorithm, LossTerm
from semanticfl_jax.algorithms.feddisco import with_disco
from semanticfl_jax.algorithms.semanticfl import guidance_term
from semanticfl_jax.algorithms.student import starts_from, student_term
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.algorithms.weights import by_size, uniform
from semanticfl_jax.config import AggregationConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.registry import AGGREGATORS, TRANSFORMS

__all__ = [
    "Algorithm",
    "LossTerm",
    "guidance_term",
    "make_algorithm",
    "starts_from",
    "student_term",
]


def make_algorithm(context: AlgorithmContext) -> Algorithm:
    """Build the algorithm that a configuration means, with its weights and its guidance.

    `algorithm.weights` other than "auto" replace its own. Where large clients are drawn more often,
    weights by size become uniform, or size would count twice (Li et al., ICLR 2020). Without
    anchors, terms that need them are left out.

    Raises:
      ConfigError: if a server optimiser is asked for, and the server's step is not that.
    """
    config = context.config
    algorithm = config.algorithm.entry.build(config.algorithm.settings, context, Algorithm)
    asked = config.algorithm.server_optimizer
    if asked not in ("auto", algorithm.server.optimizer):
        raise ConfigError(
            f"algorithm.server_optimizer must be auto with algorithm.name={config.algorithm.name}, "
            f"got {asked!r}: its server takes a step of its own; semanticfl_jax.algorithms."
            "server_optimizers.server_optimizer(context) is a ServerRule with the step that is "
            "asked for"
        )
    weights = config.algorithm.weights
    drawn_by_size = config.availability.sampling == "size_weighted"
    if weights == "auto" and drawn_by_size and algorithm.weights is by_size:
        weights = "uniform"
    if weights == "disco":
        algorithm = with_disco(algorithm, config.algorithm)
    elif weights != "auto":
        chosen = {"size": by_size, "uniform": uniform}[weights]
        algorithm = dataclasses.replace(algorithm, weights=chosen, sends_label_counts=False)
    return complete(algorithm, context)


def complete(algorithm: Algorithm, context: AlgorithmContext) -> Algorithm:
    """Return `algorithm` with aggregation, privacy and guidance as the configuration asks for.

    An aggregator, or transforms, that an algorithm brings along stay where it asks for none.

    Raises:
      SemanticFLError: if another aggregator is asked for than one that the algorithm brings along.
    """
    aggregation = context.config.aggregation
    if aggregation != AggregationConfig():
        settings = aggregation.settings
        transforms = tuple(
            TRANSFORMS[name].build(settings[name], context, UpdateTransform)
            for name in aggregation.transforms
        )
        algorithm = dataclasses.replace(algorithm, transforms=(*algorithm.transforms, *transforms))
        name = aggregation.aggregator
        if name != AggregationConfig().aggregator:
            if algorithm.aggregator != mean():
                raise SemanticFLError(
                    f"aggregation.aggregator must be mean with {algorithm.name}, which has an "
                    f"aggregator of its own, {algorithm.aggregator.name}, got {name}"
                )
            aggregator = AGGREGATORS[name].build(settings[name], context, Aggregator)
            algorithm = dataclasses.replace(algorithm, aggregator=aggregator)
    attack = context.config.attack
    algorithm = dataclasses.replace(algorithm, attack=attack.entry.build(attack.settings, context))
    privacy = context.config.privacy
    algorithm = privacy.entry.build(privacy.settings, context)(algorithm)
    return guided(algorithm, context)


def guided(algorithm: Algorithm, context: AlgorithmContext) -> Algorithm:
    """Return `algorithm` with the terms of guidance, if the configuration asks for it."""
    guidance, width, holders = context.config.guidance, context.feature_dim, context.holders
    if not guidance.enabled:
        return algorithm
    terms = []
    if context.anchors is not None and guidance.has_class_terms:
        terms.append(guidance_term(context.anchors, guidance, width, holders))
    if context.student is not None:
        student, settings, seed = context.student, guidance.student, context.config.seed
        starts = starts_from(student, settings, context.variables)
        terms.append(
            student_term(student, settings, width, seed=seed, starts=starts, holders=holders)
        )
    for term in terms:
        if term is not None:
            algorithm = algorithm.with_term(term)
    return algorithm
