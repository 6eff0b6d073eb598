"""Stochastic rounding to 1 .. 8 bits between the least and the largest number of each array.

Konecny, McMahan, Yu, Richtarik, Suresh, Bacon. "Federated Learning: Strategies for Improving
Communication Efficiency". arXiv 1610.05492; Suresh, Yu, Kumar, McMahan. "Distributed Mean
Estimation with Limited Communication". ICML 2017.

    v[j] = min + step (floor(a) or one more, with probability a - floor(a)),
    a    = (u[j] - min) / step,    step = (max - min) / (2^bits - 1)

E v = u. A number costs `bits`, each array two numbers of 4 bytes.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.compression.flat import of_parameters, packed
from semanticfl_jax.algorithms.transforms import UpdateTransform, nothing
from semanticfl_jax.config.compression import QuantizeConfig
from semanticfl_jax.types import PyTree


def quantize(settings: QuantizeConfig, context: object = None) -> UpdateTransform:
    """Build the transform; clients keep nothing."""
    del context
    most = 2**settings.bits - 1

    def rounded(x: jax.Array, key: jax.Array) -> jax.Array:
        least, largest = jnp.min(x), jnp.max(x)
        step = (largest - least) / most
        scaled = (x - least) / jnp.where(step > 0, step, 1.0)
        level = jnp.floor(scaled + jax.random.uniform(key, x.shape))
        return least + step * jnp.minimum(level, most)

    def apply(update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        leaves, form = jax.tree.flatten(update)
        keys = [jax.random.fold_in(key, index) for index in range(len(leaves))]
        return form.unflatten(list(map(rounded, leaves, keys))), state

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        return sum(packed(x.size, settings.bits) + 8 for x in jax.tree.leaves(update))

    return of_parameters(UpdateTransform("quantize", apply, nothing, bytes_up))
