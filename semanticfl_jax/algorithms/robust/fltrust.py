"""FLTrust: the server trains on images of its own, and trusts what points the same way.

Cao, Fang, Liu, Gong. "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping". NDSS
2021.

    t_i = ReLU( cos(u_i, u_0) ),    u = sum_i t_i (|u_0| / |u_i|) u_i / sum_i t_i

u_0 is what the server's own training on the public split gives, done as a client's. A running sum,
since u_0 is there before the clients' updates are. Where nobody is trusted, the model stays.
Clients count alike, whatever their weights. Running statistics are shortened alike and never
lengthened (ours): a variance could fall below zero.
"""

from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, Updates, zeros_like
from semanticfl_jax.types import PyTree


def fltrust(settings: object = None, context: object = None) -> Aggregator:
    """Build the aggregator; it has no settings."""
    del settings, context
    return Aggregator(
        "fltrust",
        finish=_finish,
        init=zeros_like,
        add=_add,
        merge=jax.lax.psum,
        encode=_encode,
        needs_root=True,
        weighted=False,
    )


def _encode(update: Any, root: PyTree, sender: Sender) -> tuple[PyTree, jax.Array]:
    del sender
    whole = jnp.isfinite(_norm(update))  # else it is zero, and is not trusted
    update = jax.tree.map(lambda x: jnp.where(whole, x, 0.0), update)
    own, length = _norm(update), _norm(root)
    product = sum(jax.tree.leaves(jax.tree.map(lambda x, r: jnp.sum(x * r), update, root)))
    tiny = jnp.finfo(jnp.float32).tiny
    trust = jax.nn.relu(product / jnp.maximum(own * length, tiny))
    scale = length / jnp.maximum(own, tiny)

    def scaled(tree: PyTree, scale: jax.Array) -> PyTree:
        return jax.tree.map(lambda x: trust * scale * x, tree)

    shortened = scaled(update.batch_stats, jnp.minimum(scale, 1.0))
    return update._replace(params=scaled(update.params, scale), batch_stats=shortened), trust


def _norm(tree: PyTree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _add(totals: PyTree, updates: Updates) -> PyTree:
    return jax.tree.map(lambda total, x: total + jnp.sum(x, axis=0), totals, updates.update)


def _finish(totals: tuple[PyTree, jax.Array], key: jax.Array) -> PyTree:
    del key
    total, trust = totals
    return jax.tree.map(lambda x: x / jnp.where(trust > 0, trust, 1.0), total)
