"""The initial model that the clients train."""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.federated.contracts import as_arrays
from semanticfl_jax.models import Network
from semanticfl_jax.randomness import Stream, stream_key
from semanticfl_jax.types import PyTree


def init_model(
    network: Network, algorithm: Algorithm, image_shape: tuple[int, ...], key: jax.Array
) -> Model:
    """Draw the initial parameters of the network and of the algorithm's terms."""
    # The model's parameters depend on its own key alone: every algorithm starts from the same.
    model_key, term_key = jax.random.split(stream_key(key, Stream.INITIAL_PARAMETERS))
    init = jax.jit(lambda key: network.init(key, jnp.zeros((1, *image_shape)), train=False))
    variables = init(model_key)
    params: dict[str, PyTree] = {"model": variables["params"]}
    for index, term in enumerate(term for term in algorithm.terms if term.init is not None):
        made = term.init(jax.random.fold_in(term_key, index))
        params[term.name] = as_arrays(made, f"LossTerm.init of {term.name}")
    return Model(params, variables.get("batch_stats", {}))
