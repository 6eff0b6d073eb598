"""What a privacy mechanism is: a function of the algorithm, which adds clipping and noise to it."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.contexts import AlgorithmContext
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
