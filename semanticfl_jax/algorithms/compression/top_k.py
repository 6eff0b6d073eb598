"""Top-k: the largest numbers of an update travel, with their places.

Aji, Heafield. "Sparse Communication for Distributed Gradient Descent". EMNLP 2017; Stich,
Cordonnier, Jaggi. "Sparsified SGD with Memory". NeurIPS 2018.

    v[j] = u[j] for the k places of largest |u[j]|, else 0

k is a share of all P parameters, across their arrays. Each costs 4 bytes and a place of
ceil(log2 P) bits.
"""

import math

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.compression.flat import (
    feed_back,
    index_bits,
    of_parameters,
    packed,
    size_of,
    to_vector,
    zeros_of,
)
from semanticfl_jax.algorithms.transforms import UpdateTransform, nothing
from semanticfl_jax.config.compression import SparseConfig
from semanticfl_jax.types import PyTree


def top_k(settings: SparseConfig, context: object = None) -> UpdateTransform:
    """Build the transform; with error feedback a client keeps an update."""
    del context

    def compress(update: PyTree, key: jax.Array) -> PyTree:
        del key
        vector, back = to_vector(update)
        _, places = jax.lax.top_k(jnp.abs(vector), kept(settings.share, vector.size))
        return back(jnp.zeros_like(vector).at[places].set(vector[places]))

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        numbers = size_of(update)
        count = kept(settings.share, numbers)
        return 4 * count + packed(count, index_bits(numbers))

    init = zeros_of if settings.feedback else nothing
    apply = feed_back(compress, settings.feedback)
    return of_parameters(UpdateTransform("top_k", apply, init, bytes_up))


def kept(share: float, size: int) -> int:
    """Return k: that share of `size` numbers, rounded up."""
    return min(size, math.ceil(share * size))
