"""What a privacy mechanism is: a function of the algorithm, which adds clipping and noise to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, mean
from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree

#: What the builder of a registry entry returns.
Protect = Callable[[Algorithm], Algorithm]


def none(settings: object, context: AlgorithmContext) -> Protect:
    """Return the algorithm as it is."""
    del settings, context
    return lambda algorithm: algorithm


def with_noise(key: jax.Array, tree: PyTree, spread: jax.Array | float) -> PyTree:
    """Return a tree of float32 arrays with independent N(0, spread^2) added to every number."""
    leaves, form = jax.tree.flatten(tree)
    noisy = [
        x + spread * jax.random.normal(jax.random.fold_in(key, index), x.shape, jnp.float32)
        for index, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(form, noisy)


def over_expected(algorithm: Algorithm, aggregator: Aggregator, cohort: int) -> Algorithm:
    """Return an algorithm whose updates are summed, and divided by the expected number of clients.

    Args:
      algorithm: with the mean for an aggregator.
      aggregator: a private sum, in its place.
      cohort: m; who has no images has no weight.

    Raises:
      SemanticFLError: if the algorithm has another aggregator.
    """
    if algorithm.aggregator != mean():  # by what it does: a name tells nothing
        raise SemanticFLError(
            f"{algorithm.name} has the aggregator {algorithm.aggregator.name}, and noise at the "
            "server (privacy.name=central, dp_ftrl) needs the mean that "
            "semanticfl_jax.algorithms.aggregators.mean() returns: it is that of a sum"
        )

    def weights(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
        del label_counts
        return (sizes > 0).astype(jnp.float32) / cohort

    return dataclasses.replace(
        algorithm, aggregator=aggregator, weights=weights, sends_label_counts=False
    )
