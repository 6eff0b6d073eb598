"""FedLC: logits of a client's rare classes need a larger margin.

Zhang, Li, Li, Xu, Wu, Ding, Wu. "Federated Learning with Label Distribution Skew via Logits
Calibration". ICML 2022.

    z'_c = z_c - tau n_c^(-1/4),   min_y  CE(z', y),   n_c the client's samples of class c

Server: FedAvg. State: none. Sent: nothing besides; the counts stay with the client. Ours: a class
that a client lacks is left out of its softmax, as n_c -> 0 makes of the formula; where an attacker
gives an image the label of such a class, it counts as one image of it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, TermInputs
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import FedLCConfig
from semanticfl_jax.contexts import AlgorithmContext


def fedlc(settings: FedLCConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedLC; with tau = 0 it is FedAvg, bit for bit."""
    algorithm = fedavg(None, context)
    if settings.tau == 0:
        return algorithm

    def calibrated(inputs: TermInputs) -> jax.Array:
        counts = inputs.label_counts.astype(jnp.float32)
        margins = settings.tau * jnp.maximum(counts, 1.0) ** -0.25
        logits = inputs.outputs.logits - margins[None]
        own = jnp.arange(len(counts))[None] == inputs.labels[:, None]
        return jnp.where((counts[None] > 0) | own, logits, -1e9)

    return dataclasses.replace(algorithm, logits=calibrated)
