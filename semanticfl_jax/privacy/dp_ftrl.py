"""DP-FTRL with a banded matrix: each round's noise takes back a part of that of the rounds before.

Kairouz, McMahan, Song, Thakkar, Thakurta, Xu. "Practical and Private (Deep) Learning Without
Sampling or Shuffling". ICML 2021; Choquette-Choo, Ganesh, McKenna, McMahan, Rush, Thakurta, Xu.
"(Amplified) Banded Matrix Factorization: A Unified Approach to Private Training". NeurIPS 2023.

    u_t = (1 / m) ( sum_i cut(u_i, C) + z C n_t )                  in round t
    n_t = ( w_t - c_1 n_(t-1) - ... - c_(b-1) n_(t-b+1) ) / c_0,   w_t ~ N(0, I)

n is the inverse, applied to w, of the matrix whose columns are c, shifted; |c| = 1. The server's
model is a sum over rounds, in which most of such noise cancels. Clients take turns, so that those
of one client are b rounds apart at least: its columns do not overlap, and k turns change what the
matrix makes of all updates by sqrt(k) C at most, as if all noise were independent. So it costs what
k Gaussian mechanisms with z cost, without amplification by sampling. b = 1 is independent noise.
With `privacy.noise_cohort` = M, the noise on u is z C n_t / M, as in `central.py`.

c makes the mean error of all sums of `rounds` updates the least; jax-privacy finds it. The server
keeps the noise of the last b - 1 rounds. That sums are what counts is true of a server that steps
along the update; with other server optimisers it is as private.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, mean
from semanticfl_jax.algorithms.transforms import clipped
from semanticfl_jax.config.privacy import DPFTRLConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.optional import optional_imports
from semanticfl_jax.privacy.accounting import noise_multiplier
from semanticfl_jax.privacy.mechanism import Protect, over_expected, with_noise
from semanticfl_jax.types import PyTree


def dp_ftrl(settings: DPFTRLConfig, context: AlgorithmContext) -> Protect:
    """Build the mechanism of a run."""
    config = context.config
    cohort, noise = config.clients_per_round, noise_multiplier(config)
    _, noise_cohort = config.privacy.federation(config)
    column = coefficients(config.rounds, settings.bands_of(config))
    spread = noise * settings.clip / noise_cohort

    aggregator = _aggregator(column, spread, settings.clip)
    return lambda algorithm: over_expected(algorithm, aggregator, cohort)


def _aggregator(column: np.ndarray, spread: float, clip: float) -> Aggregator:
    def start(model: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros((len(column) - 1, *x.shape), x.dtype), model)

    def encode(update: PyTree, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        return clipped(update, clip)[0]

    def finish(total: PyTree, key: jax.Array, last: PyTree) -> tuple[PyTree, PyTree]:
        fresh = with_noise(key, jax.tree.map(jnp.zeros_like, total), 1.0)

        def less(w: jax.Array, before: jax.Array) -> jax.Array:
            return (w - jnp.tensordot(jnp.asarray(column[1:], w.dtype), before, 1)) / column[0]

        noise = jax.tree.map(less, fresh, last)
        kept = jax.tree.map(
            lambda n, before: jnp.concatenate([n[None], before])[: len(before)], noise, last
        )
        return jax.tree.map(lambda x, n: x + spread * n, total, noise), kept

    return dataclasses.replace(
        mean(),
        name="private mean",
        encode=encode,
        start=start,
        finish=finish,
        adds_noise=True,
        weighted=False,
    )


@functools.lru_cache(maxsize=8)
def coefficients(rounds: int, bands: int) -> np.ndarray:
    """Return c, float64 [b], of norm 1, for that many rounds.

    Raises:
      MissingDependencyError: without jax-privacy.
    """
    if bands == 1:
        return np.ones(1)
    with optional_imports("privacy", "privacy.name=dp_ftrl"):
        from jax_privacy.matrix_factorization import toeplitz
    found = np.asarray(toeplitz.optimize_banded_toeplitz(rounds, bands), np.float64)
    return found / np.linalg.norm(found)
