"""FedRCL: relaxed supervised contrast on features of several depths.

Seo, Kim, Kim, Han. "Relaxed Contrastive Learning for Federated Learning". CVPR 2024.

For each level l, u the unit vectors of the level's globally averaged features before its ReLU, and
s_ij = <u_i, u_j> within the batch, in the hard-mined form of the authors' released configuration:

    L_scl(i) = log( 1 + sum_k exp( (s_neg(i, k) - s_pos(i)) / tau ) )
    L_pen(i) = log( 1 + exp( (q_i - 1) / tau ) )  if q_i >= threshold, else log( 1 + exp(-2 / tau) )
    L = CE + weight mean_l mean_i L_scl + penalty_weight mean_l mean_i L_pen

s_pos(i) is the smallest s_ij of i's class, i itself included; s_neg(i, 1..2) are the two largest of
other classes; q_i is the smallest of i's class without i, and L_pen(i) is 0 if there is none. The
penalty pushes pairs apart that are too similar already, which plain contrast collapses.

Server: the uniform average. State, and sent besides the model: none. Gradients flow through both
members of a pair. The authors also clip gradients at norm 10 (`clip_norm`), train without momentum
and let the learning rate decay; these are settings of the experiment, not of the algorithm.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, LossTerm, TermInputs
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config import FedRCLConfig, require
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.models.losses import masked_mean, unit

_HARDEST = 2  # negatives of a sample


def fedrcl(settings: FedRCLConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedRCL; without levels it is FedAvg with uniform weights."""
    algorithm = dataclasses.replace(fedavg(None, context), weights=uniform)
    if settings.levels == ():
        return algorithm
    if settings.levels != "all" and context.outputs is not None and context.outputs.levels:
        there = len(context.outputs.levels)
        allowed = f"from 0 to {there - 1} with this model"
        inside = all(0 <= level < there for level in settings.levels)
        require(inside, "algorithm.fedrcl.levels", allowed, settings.levels)
    return algorithm.with_term(relaxed_contrast(settings))


def relaxed_contrast(config: FedRCLConfig) -> LossTerm:
    """Return both losses, averaged over the levels."""

    def loss(inputs: TermInputs) -> jax.Array:
        levels = inputs.outputs.levels
        if config.levels != "all":
            levels = [levels[level] for level in config.levels]
        total = jnp.zeros((), jnp.float32)
        for level in levels:
            contrast, penalty = contrast_of_level(level, inputs.labels, inputs.mask, config)
            total += config.weight * contrast + config.penalty_weight * penalty
        return total / len(levels)

    return LossTerm(name="fedrcl", loss=loss, needs=("levels",))


def contrast_of_level(
    features: jax.Array, labels: jax.Array, mask: jax.Array, config: FedRCLConfig
) -> tuple[jax.Array, jax.Array]:
    """Mean L_scl and mean L_pen over the valid rows.

    Args:
      features: float32 [B, c].
      labels: int32 [B].
      mask: bool [B]; other rows take no part in any pair.
      config: temperature and threshold.
    """
    tau = config.temperature
    u = unit(features)
    # Full precision: accelerators round the factors of a float32 product by default.
    similar = jnp.matmul(u, u.T, precision="highest")
    valid = mask[:, None] & mask[None, :]
    same = labels[:, None] == labels[None, :]
    itself = jnp.eye(len(labels), dtype=bool)

    positive = jnp.min(jnp.where(valid & same, similar, jnp.inf), axis=1)
    positive = jnp.where(mask, positive, 0.0)  # padded rows have none
    count = min(_HARDEST, len(labels))
    hardest = jax.lax.top_k(jnp.where(valid & ~same, similar, -jnp.inf), count)[0]
    contrast = jnp.log1p(jnp.sum(jnp.exp((hardest - positive[:, None]) / tau), axis=1))

    partners = valid & same & ~itself
    partner = jnp.min(jnp.where(partners, similar, jnp.inf), axis=1)
    has_partner = jnp.any(partners, axis=1)
    partner = jnp.where(has_partner & (partner >= config.threshold), partner, -1.0)
    penalty = jnp.where(has_partner, jax.nn.softplus((partner - 1.0) / tau), 0.0)
    return masked_mean(contrast, mask), masked_mean(penalty, mask)
