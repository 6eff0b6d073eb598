"""DP-FedAvg: the server clips every client's update and adds Gaussian noise to their sum.

McMahan, Ramage, Talwar, Zhang. "Learning Differentially Private Recurrent Language Models". ICLR
2018.

    u_i' = u_i min(1, C / |u_i|)                           over the whole update
    u    = (1 / m) ( sum_i u_i' + N(0, z^2 C^2 I) )

m is `clients_per_round`, the expected size of the cohort, however many take part: the true number
would tell of a single client. It stays so where clients that diverged are left out. The server's
rule, whichever it is, sees u alone. With `privacy.noise_cohort` = M, the run stands for a larger
cohort, and all noise on sums is multiplied by m / M: on u it is N(0, z^2 C^2 I) / M.

Adaptive clipping: Andrew, Thakkar, McMahan, Ramaswamy. "Differentially Private Learning with
Adaptive Clipping". NeurIPS 2021. Clients also send whether they were not cut, and C follows the
quantile gamma of their norms:

    b  = 1/2 + (1 / r) ( sum_i (b_i - 1/2) + N(0, s^2) ),    b_i = 1 if |u_i| <= C else 0
    C' = C exp( -eta_C (b - gamma) )

r = m (1 - dropout) are the reports that a round has on average (ours; without dropout its authors'
m): by m, those that are missing would count as half cut, and a high quantile never be reached.
The shifted bits have sensitivity 1/2; with z_u = (z^-2 - (2 s)^-2)^(-1/2) in the place of z above,
both together cost what the Gaussian mechanism with z costs (its Theorem 1). b, and so C, is public.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, mean
from semanticfl_jax.algorithms.transforms import clipped
from semanticfl_jax.config.privacy import CentralConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.privacy.accounting import noise_multiplier
from semanticfl_jax.privacy.mechanism import Protect, over_expected, with_noise
from semanticfl_jax.types import PyTree


def central(settings: CentralConfig, context: AlgorithmContext) -> Protect:
    """Build the mechanism of a run."""
    config = context.config
    noise, cohort = noise_multiplier(config), config.clients_per_round
    _, noise_cohort = config.privacy.federation(config)
    if settings.adaptive:
        present = 1 - config.availability.dropout
        aggregator = _adaptive(settings, noise, noise_cohort, present)
    else:
        aggregator = _fixed(settings, noise, noise_cohort)
    return lambda algorithm: over_expected(algorithm, aggregator, cohort)


def _fixed(settings: CentralConfig, noise: float, noise_cohort: int) -> Aggregator:
    spread = noise * settings.clip / noise_cohort

    def encode(update: PyTree, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        return clipped(update, settings.clip)[0]

    def finish(total: PyTree, key: jax.Array) -> PyTree:
        return with_noise(key, total, spread)

    return dataclasses.replace(
        mean(), name="private mean", encode=encode, finish=finish, adds_noise=True, weighted=False
    )


def _adaptive(
    settings: CentralConfig, noise: float, noise_cohort: int, present: float
) -> Aggregator:
    count_noise = settings.count_noise or max(noise_cohort / 20, noise)
    of_update = split_noise(noise, count_noise)

    def start(model: PyTree) -> jax.Array:
        del model
        return jnp.float32(settings.clip)

    def encode(update: PyTree, clip: jax.Array, sender: Sender) -> PyTree:
        del sender
        cut, length = clipped(update, clip)
        return cut, (length <= clip).astype(jnp.float32) - 0.5

    def finish(total: PyTree, key: jax.Array, clip: jax.Array) -> tuple[PyTree, jax.Array]:
        update, count = total
        of_sum, of_count = jax.random.split(key)
        update = with_noise(of_sum, update, of_update * clip / noise_cohort)
        # The sum has weights of 1 / m.
        left = count + count_noise / noise_cohort * jax.random.normal(of_count)
        left = 0.5 + left / present
        return update, clip * jnp.exp(-settings.clip_rate * (left - settings.quantile))

    return dataclasses.replace(
        mean(),
        name="private mean",
        encode=encode,
        start=start,
        broadcast=lambda clip: clip,
        finish=finish,
        figures=lambda clip: {"clip": clip},
        bytes_up=lambda update, size: size + 1,
        adds_noise=True,
        weighted=False,
    )


def split_noise(noise: float, count_noise: float) -> float:
    """Return z_u: the multiplier that is left for the update, beside a count's noise of s.

    Raises:
      SemanticFLError: if the count alone would cost more than z allows.
    """
    if 2 * count_noise <= noise:
        raise SemanticFLError(
            f"privacy.central.count_noise must be above half the noise multiplier, "
            f"{noise / 2:.3g}: else the count alone costs more than both may, got "
            f"{count_noise:.3g}; raise it, or clients_per_round"
        )
    return math.pow(noise**-2 - (2 * count_noise) ** -2, -0.5)
