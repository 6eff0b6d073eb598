"""SCAFFOLD, option II: control variates cancel the clients' drift.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh. "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning". ICML 2020.

    local     y <- y - eta ( g_i(y) - c_i + c )
    client    c_i' = c_i - c + (x - y_i) / (eta K_i)
    server    x' = x + (eta_g / |S|) sum_i (y_i - x),    c' = c + (1/N) sum_i (c_i' - c_i)

State: c_i of every client, c at the server, both zero at first, so that c is the mean of all c_i.
Sent: c down and c_i' - c_i up, the size of the trained parameters each.

Momentum (ours): the correction enters before the momentum, and K_i becomes the effective number of
steps, else c_i would be up to 1 / (1 - rho) times too large.
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
from semanticfl_jax.algorithms.local_steps import effective_steps
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def scaffold(settings: object, context: AlgorithmContext) -> Algorithm:
    """Return SCAFFOLD; `server_learning_rate` is eta_g."""
    del settings
    config = context.config
    return Algorithm(
        name=config.algorithm.name,
        server=_server(config.num_clients),
        weights=uniform,
        client=_client(config.momentum),
    )


def _zeros(model: Model) -> PyTree:
    return jax.tree.map(jnp.zeros_like, model.params)


def _client(momentum: float) -> ClientRule:
    def correction(own: PyTree, common: PyTree) -> PyTree:
        return jax.tree.map(jnp.subtract, common, own)

    def finish(trained: Trained) -> Finished:
        scale = 1.0 / (trained.rate * effective_steps(trained.steps, momentum))

        def renew(own, common, x, y):
            return own - common + scale * (x - y)

        x, y = trained.received.params, trained.model.params
        own = jax.tree.map(renew, trained.state, trained.broadcast, x, y)
        return Finished(state=own, extra=jax.tree.map(jnp.subtract, own, trained.state))

    return ClientRule(init=_zeros, correction=correction, finish=finish)


def _server(num_clients: int) -> ServerRule:
    def update(common: PyTree, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, PyTree]:
        params = jax.tree.map(lambda x, u: x + aggregate.rate * u, params, aggregate.update)
        # Divided by all N clients, not by the participants.
        common = jax.tree.map(lambda c, e: c + e / num_clients, common, aggregate.extra)
        return params, common

    return ServerRule(update=update, init=_zeros, broadcast=lambda common: common)
