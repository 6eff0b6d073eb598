"""FedDyn: local objectives shifted so that their optima are stationary for the global one.

Acar, Zhao, Matas, Mattina, Whatmough, Saligrama. "Federated Learning Based on Dynamic
Regularization". ICLR 2021.

    local     min_y  f_i(y) - <g_i, y> + (alpha / 2) |y - x|^2,     g_i' = g_i - alpha (y_i - x)
    server    h' = h - (alpha / N) sum_i (y_i - x),                 x' = sum_i p_i y_i - h' / alpha

Written with the drifts l_i = -g_i / alpha, l_i' = l_i + (y_i - x), as in the authors' code: the
server keeps their mean over all N clients, which is -h / alpha, and x' = sum_i p_i y_i + mean l_i'.
The quadratic pull is FedProx's term; the linear one is a correction of every gradient, alpha l_i.

State: l_i of every client, and their mean at the server, zero at first. Sent: nothing besides the
model. Tested is the average sum_i p_i y_i, not the shifted x'. Running statistics are averaged.
With large learning rates it diverges unless gradients are clipped (`clip_norm`; its authors: 10).
"""

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
from semanticfl_jax.algorithms.fedprox import proximal_term
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config import FedDynConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


class FedDynState(NamedTuple):
    """The server's state, two trees of parameters.

    Attributes:
      drift: mean of l_i over all clients.
      average: of the last round's models, which is the model that is tested.
    """

    drift: PyTree
    average: PyTree


def feddyn(settings: FedDynConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedDyn, in its paper's form: the same alpha for all clients."""
    alpha = settings.alpha
    return Algorithm(
        name=context.config.algorithm.name,
        server=_server(context.num_clients),
        weights=uniform,
        client=_client(alpha),
        terms=(proximal_term(alpha),),
    )


def _client(alpha: float) -> ClientRule:
    def correction(drift: PyTree, broadcast: tuple) -> PyTree:
        del broadcast
        return jax.tree.map(lambda own: alpha * own, drift)

    def finish(trained: Trained) -> Finished:
        difference = jax.tree.map(jnp.subtract, trained.model.params, trained.received.params)
        return Finished(state=jax.tree.map(jnp.add, trained.state, difference), extra=difference)

    return ClientRule(
        init=lambda model: jax.tree.map(jnp.zeros_like, model.params),
        correction=correction,
        finish=finish,
        sends_extra=False,  # the server has every client's difference already
    )


def _server(num_clients: int) -> ServerRule:
    def init(model: Model) -> FedDynState:
        return FedDynState(
            drift=jax.tree.map(jnp.zeros_like, model.params),
            average=model.params,
        )

    def update(
        state: FedDynState, params: PyTree, aggregate: Aggregate
    ) -> tuple[PyTree, FedDynState]:
        drift = jax.tree.map(lambda mean, e: mean + e / num_clients, state.drift, aggregate.extra)
        average = jax.tree.map(jnp.add, params, aggregate.update)
        return jax.tree.map(jnp.add, average, drift), FedDynState(drift, average)

    return ServerRule(
        update=update,
        init=init,
        evaluated=lambda state, model: Model(state.average, model.batch_stats),
    )
