"""FedCDA's selection: of the participants' last models, those that agree most (`fedcda.py`)."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.types import PyTree


class Cache(NamedTuple):
    """One client's last models.

    Attributes:
      models: `Model` whose arrays lead with [K].
      losses: float32 [K].
      count: int32 scalar, models kept so far; the newest is at (count - 1) mod K.
    """

    models: Model
    losses: jax.Array
    count: jax.Array


def sum_chosen(kept: jax.Array, chosen: jax.Array) -> jax.Array:
    """Return the sum of the clients' chosen ones, [places, K, ...] to [...]; -1 adds nothing."""
    rows = jnp.arange(len(chosen))
    picked = kept[rows, jnp.maximum(chosen, 0)]
    return jnp.tensordot((chosen >= 0).astype(kept.dtype), picked, 1, precision="highest")


def least_divergent(
    params: PyTree,
    others: PyTree,
    count: jax.Array,
    caches: Cache,
    newest: jax.Array,
    config: ExperimentConfig,
    key: jax.Array,
) -> jax.Array:
    """Return the participants' choice of least objective, int32 [places]; -1 in empty places.

    `others` is the sum of the `count` models that are fixed. All distances are taken from the
    server's parameters, which changes none and keeps numbers small.
    With c the candidates' differences to it, and T the sum of all that are fixed, the objective is,
    up to what the choice does not change,

        ( sum F + (L / 2) sum |c|^2 ) / M - (L / 2) |T + sum c|^2 / M^2

    so that the products of candidates with one another and with T are all that is needed of them.
    """
    settings = config.algorithm.settings
    places, models = caches.losses.shape

    def products(origin, kept, rest):
        c = kept.reshape(places * models, -1) - origin.reshape(1, -1)
        t = rest.reshape(-1) - count.astype(jnp.float32) * origin.reshape(-1)
        return jnp.matmul(jnp.concatenate([c, t[None]]), c.T, precision="highest")

    leaves = jax.tree.map(products, params, caches.models.params, others)
    summed = sum(jax.tree.leaves(leaves))
    gram, towards = summed[:-1], summed[-1]

    # The participants, without empty places, in random order, in parts of equal size.
    m, part = config.clients_per_round, -(-config.clients_per_round // settings.batches)
    filled = jnp.argsort(newest < 0, stable=True)[:m]
    order = jax.random.permutation(key, filled) if settings.batches > 1 else filled
    fixed = count.astype(jnp.float32)
    chosen = newest
    for start in range(0, m, part):
        clients = order[start : start + part]
        combinations = jnp.asarray(
            list(itertools.product(range(models), repeat=len(clients))), jnp.int32
        )
        here = newest[clients] >= 0
        kept = jnp.arange(models)[None] < jnp.minimum(caches.count[clients], models)[:, None]
        fixed = fixed + jnp.sum(here)

        def objective(picks, clients=clients, here=here, kept=kept, towards=towards, fixed=fixed):
            index = clients * models + picks
            weight = here.astype(jnp.float32)
            between = gram[index[:, None], index[None]] * weight[:, None] * weight[None]
            spread = jnp.sum(jnp.diagonal(between)) / fixed
            centre = (2.0 * jnp.sum(weight * towards[index]) + jnp.sum(between)) / fixed**2
            losses = jnp.sum(weight * caches.losses[clients, picks]) / fixed
            possible = jnp.all(kept[jnp.arange(len(clients)), picks] | ~here)
            value = losses + 0.5 * settings.smoothness * (spread - centre)
            return jnp.where(possible, value, jnp.inf)

        best = combinations[jnp.argmin(jax.lax.map(objective, combinations, batch_size=1024))]
        best = jnp.where(here, best, -1)
        chosen = chosen.at[clients].set(best)
        index = clients * models + jnp.maximum(best, 0)
        towards = towards + jnp.sum(jnp.where(here, gram[:, index], 0.0), axis=1)
    return chosen
