"""Norm bounding: the server shortens every update before it averages them.

Sun, Kairouz, Suresh, McMahan. "Can You Really Backdoor Federated Learning?". arXiv 1911.07963.

    u = sum_i p_i u_i min(1, M / |u_i|)

A running sum. It differs from the transform `clip` in who does it: clients that attack leave their
transforms out.
"""

import dataclasses

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, mean
from semanticfl_jax.algorithms.transforms import clipped
from semanticfl_jax.config.aggregation import ClipConfig
from semanticfl_jax.types import PyTree


def norm_bound(settings: ClipConfig, context: object = None) -> Aggregator:
    """Build the aggregator."""
    del context

    def encode(update: PyTree, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        return clipped(update, settings.max_norm)[0]

    return dataclasses.replace(mean(), name="norm bound", encode=encode)
