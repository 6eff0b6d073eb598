"""FedDisco: FedAvg whose weights heed how far a client's labels are from uniform.

Ye, Xu, Wang, Xu, Chen, Wang. "FedDisco: Federated Learning with Discrepancy-Aware Collaboration".
ICML 2023. The option `algorithm.weights=disco` gives them to any algorithm.
Sent: each client's label counts, once.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.weights import Weights, by_size
from semanticfl_jax.config import AlgorithmConfig
from semanticfl_jax.contexts import AlgorithmContext


def feddisco(settings: object, context: AlgorithmContext) -> Algorithm:
    """Return FedDisco; where discrepancies and sizes are equal it is FedAvg."""
    return with_disco(fedavg(settings, context), context.config.algorithm)


def with_disco(algorithm: Algorithm, config: AlgorithmConfig) -> Algorithm:
    """Return `algorithm` with FedDisco's weights."""
    settings = config.feddisco
    return dataclasses.replace(
        algorithm, weights=disco(settings.a, settings.b), sends_label_counts=True
    )


def disco(a: float, b: float) -> Weights:
    """Return FedDisco's weights: less for clients whose labels are far from uniform.

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
