"""Which part of the model travels: all of it, or what the client rule's `uploads` says.

What does not travel is None in the tree, so that neither transforms nor aggregators can see it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.algorithms.parts import path_name
from semanticfl_jax.federated.contracts import require_update


def travelling(algorithm: Algorithm, model: Model) -> Model:
    """Return `model`, or a tree like it, with None for what does not travel."""
    uploads = _uploads(algorithm)
    if uploads is None:
        return model
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x if uploads(path_name(path)) else None, model
    )


def with_zeros(algorithm: Algorithm, update: Model, model: Model) -> Model:
    """Return an aggregated update as a whole one: with zeros like `model`'s for what is None.

    Raises:
      SemanticFLError: if it has not the form of what travels.
    """
    require_update(update, travelling(algorithm, model), algorithm.aggregator.name)
    if _uploads(algorithm) is None:
        return update
    return jax.tree.map(
        lambda x, own: jax.tree.map(jnp.zeros_like, own) if x is None else x,
        update,
        model,
        is_leaf=lambda x: x is None,
    )


def with_own(algorithm: Algorithm, model: Model, own: Model) -> Model:
    """Return `model` with the server's `own` for what does not travel."""
    uploads = _uploads(algorithm)
    if uploads is None:
        return model
    return jax.tree_util.tree_map_with_path(
        lambda path, new, old: new if uploads(path_name(path)) else old, model, own
    )


def _uploads(algorithm: Algorithm) -> Callable[[str], bool] | None:
    return None if algorithm.client is None else algorithm.client.uploads
