"""Optimisers that are chosen by name, which return a direction: without rate, and without sign."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.registry import Entry


def build_direction(
    entry: Entry, settings: Any, context: AlgorithmContext
) -> optax.GradientTransformation:
    """Return what an optimiser's builder makes.

    Raises:
      SemanticFLError: if that is no transformation of optax, or one that has the sign of a step.
    """
    made = entry.build(settings, context, optax.GradientTransformation)
    if not entry.source.startswith("semanticfl_jax.") and _along_ones(made) < -1e-3:
        raise SemanticFLError(
            f"the builder of {entry.name}, {entry.source}, must return the direction, without rate "
            "and sign, as optax.scale_by_lion does and optax.lion does not: for a gradient of ones "
            "it is negative, so that training would climb"
        )
    return made


def _along_ones(optimizer: optax.GradientTransformation) -> float:
    """Return how far an optimiser's first direction goes along a gradient of ones."""
    ones = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    try:
        direction, _ = optimizer.update(ones, optimizer.init(ones), ones)
        return float(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(direction)))
    except Exception:
        return 0.0  # it may ask for the parameters of one network; it is then not checked
