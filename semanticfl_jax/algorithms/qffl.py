"""q-FFL, solved by q-FedAvg: clients whose loss is high count more.

Li, Sanjabi, Beirami, Smith. "Fair Resource Allocation in Federated Learning". ICLR 2020.

    min_x  sum_i F_i(x)^(q + 1) / (q + 1)

    client   F_i = f_i(x);   d_i = (x - y_i) / eta;   h_i = q F_i^(q - 1) |d_i|^2 + F_i^q / eta
    server   x' = x - sum_i F_i^q d_i / sum_i h_i

State: none. Sent: F_i^q d_i in place of the update, and h_i. Cost: a forward pass a step more.

Ours: F_i is measured on the batches of the first epoch as they are trained on, in training mode,
with all terms of the loss; its authors take a pass over all samples. It is 1e-10 at least, which
they add to it: a loss can be exactly 0 in float32, and 0^(q - 1) infinite. eta is the clients' rate
of the round, and running statistics are averaged alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    ClientRule,
    Descent,
    Finished,
    ServerRule,
    StepInputs,
    Trained,
)
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config import QFFLConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree

#: The least F_i.
_LEAST = 1e-10


class Seen(NamedTuple):
    """Float32 scalars: the loss of the received model summed over samples, and their number."""

    loss: jax.Array
    samples: jax.Array


def qffl(settings: QFFLConfig, context: AlgorithmContext) -> Algorithm:
    """Return q-FFL; with q = 0 it is FedAvg with uniform weights."""
    q = settings.q

    def descend(inputs: StepInputs) -> Descent:
        (loss, statistics), gradient = inputs.value_and_grad(inputs.model)
        (before, _), _ = inputs.value_and_grad(inputs.received)
        moment = inputs.moment
        count = jnp.where(moment.index < moment.steps_per_epoch, inputs.count, 0.0)
        own = Seen(inputs.own.loss + count * before, inputs.own.samples + count)
        return Descent(loss, statistics, gradient, own)

    def finish(trained: Trained) -> Finished:
        loss = jnp.maximum(trained.own.loss / trained.own.samples, _LEAST)
        x, y = trained.received.params, trained.model.params
        back = jax.tree.map(lambda x, y: (x - y) / trained.rate, x, y)
        squares = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(back))
        scale = loss**q
        curvature = q * loss ** (q - 1) * squares + scale / trained.rate
        update = jax.tree.map(lambda d: -scale * d, back)
        return Finished(state=(), update=update, extra=curvature)

    def update(state: tuple, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, tuple]:
        # The average has uniform weights: times the participants it is the sum.
        step = aggregate.participants / aggregate.extra
        return jax.tree.map(lambda x, u: x + step * u, params, aggregate.update), state

    def carries(state: tuple, received: PyTree, broadcast: PyTree, optimizer: object) -> Seen:
        del state, received, broadcast, optimizer
        return Seen(jnp.zeros(()), jnp.zeros(()))

    return Algorithm(
        name=context.config.algorithm.name,
        server=ServerRule(update=update),
        weights=uniform,
        client=ClientRule(finish=finish, carries=carries, descend=descend),
    )
