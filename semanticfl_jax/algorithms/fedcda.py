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
from semanticfl_jax.algorithms.fedcda_selection import Cache, least_divergent, sum_chosen
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.config import ExperimentConfig, FedCDAConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


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
    """Return FedCDA; one model a client, all clients alike and in every round make it FedAvg."""
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
    # A little more, so that 0.29 of 100 rounds is 29 and not 28.
    warmup = math.floor(settings.warmup * config.rounds * (1 + 1e-9))

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
            lambda total, kept: total - sum_chosen(kept, chosen_before), state.total, before.models
        )
        count = jnp.sum(state.chosen >= 0) - jnp.sum(chosen_before >= 0)

        newest = (after.count - 1) % settings.models
        chosen = jnp.where(present & (after.count > 0), newest, -1)
        if settings.selection == "divergence":
            selected = least_divergent(
                params, others.params, count, after, chosen, config, aggregate.key
            )
            chosen = jnp.where(state.round < warmup, chosen, selected)
        total = jax.tree.map(
            lambda rest, kept: rest + sum_chosen(kept, chosen), others, after.models
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
