"""FedCDA: of every client's last models those are averaged that agree best across rounds.

Wang, Xu, Li, Xu, Li, Zhang. "FedCDA: Federated Learning with Cross-rounds Divergence-aware
Aggregation". ICLR 2024.

The server keeps the last K models w_i^k of every client with the losses F_i^k of their last local
epoch. It chooses k(i) for the participants so that

    mean_i F_i^{k(i)} + (L / 2) mean_i | w_i^{k(i)} - mean_j w_j^{k(j)} |^2

is least over all M clients that have taken part so far, others keeping the model chosen for them
before; x' is the mean of all chosen models, participants or not, whatever their sizes. (The paper
writes mean |w_i|^2 - |mean w|^2, which is the same.) The first rounds are plain FedAvg.

State: K models of every client, which is what the algorithm costs. It lies where clients' states
lie, though it is the server's. Sent besides the model: one number, the loss.

Ours: the choice is exact over all K^m combinations (`batches` > 1: the paper's greedy solution in
random parts); clients that have not taken part are left out; models are kept in the FedAvg rounds
too; running statistics do not count in the distance, and those of the chosen models are averaged.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    ClientRule,
    Finished,
    Model,
    ServerRule,
    Trained,
)
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.config import ExperimentConfig, FedCDAConfig
from semanticfl_jax.contexts import AlgorithmContext
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


class FedCDAState(NamedTuple):
    """The server's state.

    Attributes:
      total: `Model`, sum of the chosen models of all clients that have taken part.
      chosen: int32 [N], which of its models each client's is; -1: it has not taken part.
      round: int32 scalar, rounds done.
    """

    total: Model
    chosen: jax.Array
    round: jax.Array


def fedcda(settings: FedCDAConfig, context: AlgorithmContext) -> Algorithm:
    """FedCDA; one model a client, all clients alike and in every round make it FedAvg."""
    return Algorithm(
        name=context.config.algorithm.name,
        server=_server(context.config),
        weights=by_size,  # of the FedAvg rounds
        client=_client(settings.models),
    )


def _client(models: int) -> ClientRule:
    def init(model: Model) -> Cache:
        zeros = jax.tree.map(lambda x: jnp.zeros((models, *x.shape), x.dtype), model)
        return Cache(zeros, jnp.zeros(models), jnp.zeros((), jnp.int32))

    def finish(trained: Trained) -> Finished:
        cache = trained.state
        place = cache.count % models
        kept = jax.tree.map(
            lambda models, new: models.at[place].set(new), cache.models, trained.model
        )
        losses = cache.losses.at[place].set(trained.loss)
        return Finished(state=Cache(kept, losses, cache.count + 1), extra=trained.loss)

    return ClientRule(init=init, finish=finish)


def _server(config: ExperimentConfig) -> ServerRule:
    settings = config.algorithm.settings
    warmup = math.floor(settings.warmup * config.rounds)

    def init(model: Model) -> FedCDAState:
        return FedCDAState(
            total=jax.tree.map(jnp.zeros_like, model),
            chosen=jnp.full(config.num_clients, -1, jnp.int32),
            round=jnp.zeros((), jnp.int32),
        )

    def update(
        state: FedCDAState, params: PyTree, aggregate: Aggregate
    ) -> tuple[PyTree, FedCDAState]:
        before, after = aggregate.before, aggregate.after
        present = aggregate.clients >= 0
        chosen_before = jnp.where(present, state.chosen[aggregate.clients], -1)
        # Without the participants: what others' choices add up to, and how many they are.
        others = jax.tree.map(
            lambda total, kept: total - _sum_chosen(kept, chosen_before), state.total, before.models
        )
        count = jnp.sum(state.chosen >= 0) - jnp.sum(chosen_before >= 0)

        newest = (after.count - 1) % settings.models
        chosen = jnp.where(present & (after.count > 0), newest, -1)
        if settings.selection == "divergence":
            selected = _least_divergent(
                params, others.params, count, after, chosen, config, aggregate.key
            )
            chosen = jnp.where(state.round < warmup, chosen, selected)
        total = jax.tree.map(
            lambda rest, kept: rest + _sum_chosen(kept, chosen), others, after.models
        )
        everyone = (count + jnp.sum(chosen >= 0)).astype(jnp.float32)
        plain = jax.tree.map(jnp.add, params, aggregate.update)
        params = jax.tree.map(
            lambda total, plain: jnp.where(state.round < warmup, plain, total / everyone),
            total.params,
            plain,
        )
        places = jnp.where(present, aggregate.clients, config.num_clients)
        choices = state.chosen.at[places].set(chosen, mode="drop")
        return params, FedCDAState(total, choices, state.round + 1)

    def batch_stats(state: FedCDAState, averaged: PyTree) -> PyTree:
        everyone = jnp.sum(state.chosen >= 0).astype(jnp.float32)
        return jax.tree.map(
            lambda total, plain: jnp.where(state.round <= warmup, plain, total / everyone),
            state.total.batch_stats,
            averaged,
        )

    return ServerRule(update=update, init=init, batch_stats=batch_stats)


def _sum_chosen(kept: jax.Array, chosen: jax.Array) -> jax.Array:
    """Return the sum of the clients' chosen ones, [places, K, ...] to [...]; -1 adds nothing."""
    rows = jnp.arange(len(chosen))
    picked = kept[rows, jnp.maximum(chosen, 0)]
    return jnp.tensordot((chosen >= 0).astype(kept.dtype), picked, 1, precision="highest")


def _least_divergent(
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
