"""Weights of the clients' updates in a round's average.

Each is (sizes int32 [m], label_counts int32 [m, K]) -> float32 [m] that sum to one, over the places
of a cohort; size 0 marks an empty place, or a client without data, and gets weight 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Weights = Callable[[jax.Array, jax.Array], jax.Array]


def by_size(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
    """Proportional to the clients' sample counts (McMahan et al., AISTATS 2017)."""
    del label_counts
    sizes = sizes.astype(jnp.float32)
    return sizes / jnp.sum(sizes)


def uniform(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
    """Alike for all participants."""
    del label_counts
    present = (sizes > 0).astype(jnp.float32)
    return present / jnp.sum(present)


def disco(a: float, b: float) -> Weights:
    """FedDisco's weights: less for clients whose labels are far from uniform.

    Ye, Xu, Wang, Xu, Chen, Wang. "FedDisco: Federated Learning with Discrepancy-Aware
    Collaboration". ICML 2023.

        p_i ~ ReLU( n_i - a d_i + b ),   d_i ~ KL( D_i || 1/K )

    with n_i the size and d_i the discrepancy relative to the participants' sums, as in the authors'
    code; D_i is the distribution of the client's labels. Where no client is left, weights are by
    size (ours: the authors' code fails there).
    """

    def weights(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
        present = sizes > 0
        total = jnp.maximum(jnp.sum(label_counts, axis=1, keepdims=True), 1)
        shares = label_counts / total
        logs = jnp.log(jnp.where(shares > 0, shares * label_counts.shape[1], 1.0))
        discrepancy = jnp.where(present, jnp.sum(shares * logs, axis=1), 0.0)
        everyone = jnp.sum(discrepancy)
        discrepancy = discrepancy / jnp.where(everyone > 0, everyone, 1.0)
        sized = by_size(sizes, label_counts)
        kept = jnp.where(present, jax.nn.relu(sized - a * discrepancy + b), 0.0)
        kept_sum = jnp.sum(kept)
        return jnp.where(kept_sum > 0, kept / jnp.where(kept_sum > 0, kept_sum, 1.0), sized)

    return weights
