"""Signs with a majority vote: one bit a number, up and down.

Bernstein, Wang, Azizzadenesheli, Anandkumar. "signSGD: Compressed Optimisation for Non-Convex
Problems". ICML 2018; the vote: Bernstein, Zhao, Azizzadenesheli, Anandkumar. "signSGD with Majority
Vote is Communication Efficient and Fault Tolerant". ICLR 2019.

    u[k] = step sign( sum_i sign(u_i[k]) )

Clients count alike, whatever their weights. The model itself still travels down whole, since
clients that were not asked before have none to add the vote to.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, Updates, zeros_like
from semanticfl_jax.algorithms.compression.flat import packed, size_of
from semanticfl_jax.config.compression import MajoritySignConfig
from semanticfl_jax.types import PyTree


def majority_sign(settings: MajoritySignConfig, context: object = None) -> Aggregator:
    """Build the aggregator, a running sum."""
    del context

    def encode(update: PyTree, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        return jax.tree.map(jnp.sign, update)

    def add(totals: PyTree, updates: Updates) -> PyTree:
        return jax.tree.map(lambda t, x: t + jnp.sum(x, axis=0), totals, updates.update)

    def finish(votes: PyTree, key: jax.Array) -> PyTree:
        del key
        return jax.tree.map(lambda x: settings.step * jnp.sign(x), votes)

    return Aggregator(
        "majority of signs",
        finish,
        zeros_like,
        add,
        jax.lax.psum,
        encode=encode,
        bytes_up=lambda update, size: packed(size_of(update), 1),
        weighted=False,
    )
