"""FedExP: the server's step is extrapolated as far as the clients' updates disagree.

Jhunjhunwala, Wang, Joshi. "FedExP: Speeding Up Federated Averaging via Extrapolation". ICLR 2023.

    eta_g = max( 1,  sum_i p_i |u_i|^2 / (2 (|u|^2 + epsilon)) ),   u = sum_i p_i u_i
    x'    = x + eta_g u

State: at the server, the model of the round before: as in the paper, the mean of the last two is
tested, because the extrapolated iterates oscillate. Sent: |u_i|^2, a number. p_i are the weights of
the average, by size unless chosen otherwise; uniform ones give the paper's 1 / (2 m). Running
statistics are averaged, not extrapolated, and those of the last round are tested. Reported:
eta_g as `server_step`.
"""

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
from semanticfl_jax.config import FedExPConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def fedexp(settings: FedExPConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedExP; where all clients' updates are equal it is FedAvg."""

    def finish(trained: Trained) -> Finished:
        update = jax.tree.map(jnp.subtract, trained.model.params, trained.received.params)
        return Finished(state=(), extra=trained.weight * squared_norm(update))

    def rate_of(aggregate: Aggregate) -> jax.Array:
        length = squared_norm(aggregate.update) + settings.epsilon
        squares = aggregate.extra / aggregate.weight  # a mean, like the update, whoever is left out
        return jnp.maximum(1.0, squares / (2 * length))

    def update(state: PyTree, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, PyTree]:
        del state
        rate = rate_of(aggregate)
        return jax.tree.map(lambda x, u: x + rate * u, params, aggregate.update), params

    def evaluated(previous: PyTree, model: Model) -> Model:
        mean = jax.tree.map(lambda a, b: 0.5 * (a + b), previous, model.params)
        return model._replace(params=mean)

    server = ServerRule(
        update=update,
        init=lambda model: model.params,
        evaluated=evaluated,
        figures=lambda state, aggregate: {"server_step": rate_of(aggregate)},
    )
    name = context.config.algorithm.name
    return Algorithm(name=name, server=server, client=ClientRule(finish=finish))


def squared_norm(tree: PyTree) -> jax.Array:
    """Return the squared L2 norm of all arrays together."""
    return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))
