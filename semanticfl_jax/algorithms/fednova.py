"""FedNova: updates divided by the clients' effective numbers of steps.

Wang, Liu, Liang, Joshi, Poor. "Tackling the Objective Inconsistency Problem in Heterogeneous
Federated Optimization". NeurIPS 2020.

    client    d_i = (y_i - x) / a_i,    a_i = |a_i|_1  (local_steps.py)
    server    x' = x + eta_g tau sum_i p_i d_i,    tau = sum_i p_i a_i

so that a client that takes more steps does not weigh more than its data. The local objective may
have FedProx's term. State: none. Sent: one number besides the model. The authors' optional momentum
at the server is left out.
"""

import jax

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    ClientRule,
    Finished,
    ServerRule,
    Trained,
)
from semanticfl_jax.algorithms.fedprox import proximal_term
from semanticfl_jax.algorithms.local_steps import effective_steps
from semanticfl_jax.config import FedNovaConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


def fednova(settings: FedNovaConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedNova; clients that take equal numbers of steps make it FedAvg."""
    mu, config = settings.mu, context.config
    algorithm = Algorithm(
        name=config.algorithm.name,
        server=_server(),
        client=_client(config.momentum, mu),
    )
    return algorithm.with_term(proximal_term(mu)) if mu > 0 else algorithm


def _client(momentum: float, mu: float) -> ClientRule:
    def finish(trained: Trained) -> Finished:
        shrink = trained.rate * mu if mu else None
        steps = effective_steps(trained.steps, momentum, shrink)
        x, y = trained.received.params, trained.model.params
        update = jax.tree.map(lambda x, y: (y - x) / steps, x, y)
        return Finished(state=(), update=update, extra=trained.weight * steps)

    return ClientRule(finish=finish)


def _server() -> ServerRule:
    def update(state: tuple, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, tuple]:
        steps = aggregate.rate * aggregate.extra / aggregate.weight
        return jax.tree.map(lambda x, d: x + steps * d, params, aggregate.update), state

    return ServerRule(update=update)
