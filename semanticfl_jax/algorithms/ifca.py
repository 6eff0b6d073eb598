"""IFCA: several common models, of which each client trains the one that suits its images best.

Ghosh, Chung, Yin, Ramchandran. "An Efficient Framework for Clustered Federated Learning". NeurIPS
2020.

    client   j_i = argmin_j  f_i(x_j);   y_i by local SGD from x_j with j = j_i
    server   x_j' = x_j + sum_{j_i = j} p_i (y_i - x_j) / sum_{j_i = j} p_i

(its Algorithm 1 with model averaging). A model that nobody chose stays. State: which model a client
chose last, a number; at the server, the models. Sent: one model and which it is (whose 4 bytes are
not counted); received: all of them. Cost: a forward pass of each over an epoch.

Ours: f_i is the mean over the batches of the first epoch as they are trained on, in training mode,
with all terms of the loss. The first model begins as any algorithm's does, and each other one with
as much noise again, array by array, scaled so that variances stay; its authors draw every model
anew. Weights are by size, unless chosen otherwise. What is tested as the server's model is the one
that most weight chose in the last round; a client's own is its choice, the first before it took
part.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    Beginning,
    ClientRule,
    Finished,
    Model,
    ServerRule,
    Trained,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.config import IFCAConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.randomness import HostStream, host_generator
from semanticfl_jax.types import PyTree


class IFCAState(NamedTuple):
    """What the server keeps of k models; the parameters of the first are its own.

    Attributes:
      params: of the others, stacked, [k - 1, ...].
      batch_stats: running statistics of all, [k, ...].
      chosen: float32 [k], the weight of the clients that chose each in the last round.
    """

    params: PyTree
    batch_stats: PyTree
    chosen: jax.Array


def ifca(settings: IFCAConfig, context: AlgorithmContext) -> Algorithm:
    """Return IFCA; where all clients choose the first model it is FedAvg."""
    count, config = settings.models, context.config
    seed = int(host_generator(config.seed, HostStream.CLUSTERS).integers(2**31))

    def begin(inputs: Beginning) -> tuple[Model, jax.Array]:
        models = _together(inputs.received, inputs.broadcast)

        def loss_of(model: Model) -> jax.Array:
            def add(index: jax.Array, total: jax.Array) -> jax.Array:
                (loss, _), _ = inputs.value_and_grad(model, index)
                return total + loss

            # Zero made of an array varies over the mesh as it does.
            zero = 0.0 * jnp.sum(jax.tree.leaves(model)[0])
            return jax.lax.fori_loop(0, inputs.steps_per_epoch, add, zero)

        losses = jax.lax.map(loss_of, models)
        choice = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses)).astype(jnp.int32)
        return _pick(models, choice), choice

    def finish(trained: Trained) -> Finished:
        begun = _pick(_together(trained.received, trained.broadcast), trained.own)
        chosen = jnp.arange(count) == trained.own
        weights = jnp.where(chosen, trained.weight, 0.0)

        def spread(y: jax.Array, x: jax.Array) -> jax.Array:
            # Chosen, not multiplied: zero times what a client that diverged sends is not zero.
            change = (y - x)[None]
            return jnp.where(rows(chosen, change), trained.weight * change, 0.0)

        sums = jax.tree.map(spread, trained.model, begun)
        return Finished(state=trained.own, extra=(weights, sums))

    def init(model: Model) -> IFCAState:
        keys = jax.random.split(jax.random.key(seed), count - 1)
        others = jax.vmap(lambda key: _another(model.params, settings.spread, key))(keys)
        everyone = jax.tree.map(lambda x: jnp.repeat(x[None], count, axis=0), model.batch_stats)
        return IFCAState(others, everyone, jnp.zeros(count))

    def update(state: IFCAState, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, IFCAState]:
        weights, sums = aggregate.extra
        divisors = jnp.where(weights > 0, weights, 1.0)
        mean = jax.tree.map(lambda x: x / rows(divisors, x), sums)
        first = jax.tree.map(lambda x, d: x + d[0], params, mean.params)
        others = jax.tree.map(lambda x, d: x + d[1:], state.params, mean.params)
        statistics = jax.tree.map(jnp.add, state.batch_stats, mean.batch_stats)
        return first, IFCAState(others, statistics, weights)

    def broadcast(state: IFCAState) -> Model:
        return Model(state.params, jax.tree.map(lambda x: x[1:], state.batch_stats))

    server = ServerRule(
        update=update,
        init=init,
        broadcast=broadcast,
        evaluated=lambda state, model: _pick(
            _together(model, broadcast(state)), jnp.argmax(state.chosen)
        ),
        batch_stats=lambda state, averaged: jax.tree.map(lambda x: x[0], state.batch_stats),
    )
    client = ClientRule(
        init=lambda model: jnp.int32(0),
        begin=begin,
        finish=finish,
        sends_extra=False,
        personal=lambda state, model, sent: _pick(_together(model, sent), state),
    )
    return dataclasses.replace(fedavg(None, context), server=server, client=client)


def _together(first: Model, others: Model) -> Model:
    return jax.tree.map(lambda x, rest: jnp.concatenate([x[None], rest]), first, others)


def _pick(models: Model, index: jax.Array) -> Model:
    return jax.tree.map(lambda x: x[index], models)


def _another(params: PyTree, spread: float, key: jax.Array) -> PyTree:
    """Return parameters that begin elsewhere: m + (x - m + spread std n) / sqrt(1 + spread^2)."""
    leaves, form = jax.tree.flatten(params)

    def moved(x: jax.Array, key: jax.Array) -> jax.Array:
        mean, noise = jnp.mean(x), jax.random.normal(key, x.shape)
        return mean + (x - mean + spread * jnp.std(x) * noise) / jnp.sqrt(1 + spread**2)

    keys = jax.random.split(key, len(leaves))
    return form.unflatten([moved(x, keys[index]) for index, x in enumerate(leaves)])
