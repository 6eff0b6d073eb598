"""Signs with a majority vote: one bit a number, up and down.

Bernstein, Wang, Azizzadenesheli, Anandkumar. "signSGD: Compressed Optimisation for Non-Convex
Problems". ICML 2018; the vote: Bernstein, Zhao, Azizzadenesheli, Anandkumar. "signSGD with Majority
Vote is Communication Efficient and Fault Tolerant". ICLR 2019.

    u[k] = step sign( sum_i sign(u_i[k]) )

Clients count alike, whatever their weights. Running statistics are no directions: their differences
travel as they are, and are averaged (ours). What did not change, and what is no number, votes for
neither; a bit cannot say so, and these are few. The model itself still travels down whole, since
clients that were not asked before have none to add the vote to.
"""

from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, Updates, zeros_like
from semanticfl_jax.algorithms.compression.flat import bytes_of_statistics, packed, size_of
from semanticfl_jax.config.compression import MajoritySignConfig
from semanticfl_jax.types import PyTree


def majority_sign(settings: MajoritySignConfig, context: object = None) -> Aggregator:
    """Build the aggregator, a running sum."""
    del context

    def vote(x: jax.Array) -> jax.Array:
        return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)  # NaN is neither

    def encode(update: Any, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        return update._replace(params=jax.tree.map(vote, update.params))

    def init(update: PyTree) -> tuple[PyTree, jax.Array]:
        return zeros_like(update), jnp.zeros(())

    def add(totals: tuple[PyTree, jax.Array], updates: Updates) -> tuple[PyTree, jax.Array]:
        total, count = totals
        total = jax.tree.map(lambda t, x: t + jnp.sum(x, axis=0), total, updates.update)
        return total, count + jnp.sum(updates.present.astype(jnp.float32))

    def finish(totals: tuple[Any, jax.Array], key: jax.Array) -> PyTree:
        del key
        (votes, statistics), count = totals
        params = jax.tree.map(lambda x: settings.step * jnp.sign(x), votes)
        count = jnp.maximum(count, 1.0)
        return totals[0]._replace(
            params=params, batch_stats=jax.tree.map(lambda x: x / count, statistics)
        )

    return Aggregator(
        "majority of signs",
        finish,
        init,
        add,
        jax.lax.psum,
        encode=encode,
        bytes_up=lambda update, size: (
            packed(size_of(update.params), 1) + bytes_of_statistics(update)
        ),
        weighted=False,
    )
