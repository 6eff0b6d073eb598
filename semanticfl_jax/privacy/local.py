"""Local differential privacy: every client clips its update and adds the noise itself.

Duchi, Jordan, Wainwright. "Local Privacy and Statistical Minimax Rates". FOCS 2013; with the
Gaussian mechanism (Dwork, Roth. "The Algorithmic Foundations of Differential Privacy". 2014).

    u_i' = u_i min(1, C / |u_i|) + N(0, z^2 C^2 I)

Any two updates that a client could send are within 2 C, so that one report is a Gaussian mechanism
with noise multiplier z / 2, whoever asks and whatever the others do. It is the last transform:
nothing that a client sends goes around it.
"""

from __future__ import annotations

import dataclasses

import jax

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.transforms import UpdateTransform, clipped
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config.privacy import LocalConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.privacy.accounting import noise_multiplier
from semanticfl_jax.privacy.mechanism import Protect, with_noise
from semanticfl_jax.types import PyTree


def local(settings: LocalConfig, context: AlgorithmContext) -> Protect:
    """Build the mechanism; weights are uniform, because sizes would be told without noise."""
    noise = noise_multiplier(context.config)

    def apply(update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        update, _ = clipped(update, settings.clip)
        return with_noise(key, update, noise * settings.clip), state

    last = UpdateTransform("local privacy", apply)

    def protect(algorithm: Algorithm) -> Algorithm:
        transforms = (*algorithm.transforms, last)
        return dataclasses.replace(
            algorithm, transforms=transforms, weights=uniform, sends_label_counts=False
        )

    return protect
