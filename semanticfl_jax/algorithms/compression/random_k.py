"""Random-k: numbers at random places travel.

Stich, Cordonnier, Jaggi. "Sparsified SGD with Memory". NeurIPS 2018; without error feedback, the
random mask of Konecny, McMahan, Yu, Richtarik, Suresh, Bacon. "Federated Learning: Strategies for
Improving Communication Efficiency". arXiv 1610.05492.

    v[j] = u[j] at k places drawn at random, else 0

Without feedback it is multiplied by P / k, so that E v = u.

The places follow from a seed of 8 bytes, which travels in their stead.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.compression.flat import (
    feed_back,
    of_parameters,
    size_of,
    to_vector,
    zeros_of,
)
from semanticfl_jax.algorithms.compression.top_k import kept
from semanticfl_jax.algorithms.transforms import UpdateTransform, nothing
from semanticfl_jax.config.compression import SparseConfig
from semanticfl_jax.types import PyTree


def random_k(settings: SparseConfig, context: object = None) -> UpdateTransform:
    """Build the transform; with error feedback a client keeps an update."""
    del context

    def compress(update: PyTree, key: jax.Array) -> PyTree:
        vector, back = to_vector(update)
        count = kept(settings.share, vector.size)
        _, places = jax.lax.top_k(jax.random.uniform(key, vector.shape), count)
        scale = 1.0 if settings.feedback else vector.size / count
        return back(jnp.zeros_like(vector).at[places].set(scale * vector[places]))

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        return 4 * kept(settings.share, size_of(update)) + 8

    init = zeros_of if settings.feedback else nothing
    apply = feed_back(compress, settings.feedback)
    return of_parameters(UpdateTransform("random_k", apply, init, bytes_up))
