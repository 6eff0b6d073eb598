"""APFL: every client's model is a mixture of a local and the common one.

Deng, Kamani, Mahdavi. "Adaptive Personalized Federated Learning". arXiv 2003.13461.

    common    w <- w - eta grad f_i(w)                       averaged as in FedAvg
    mixture   m = alpha v + (1 - alpha) w
    local     v <- v - eta alpha grad f_i(m)
    share     alpha <- alpha - eta <grad f_i(m), v - w>      within 0 .. 1, if it is adaptive

all three of the same batch and of the values before the step. State: v and alpha, and the running
statistics of m. Sent: nothing besides w. Cost: a second forward and backward pass a step. Ours: v
moves by the clients' optimiser, and a client that is tested mixes v with the server's newest model.
Reported: the clients' mean alpha after the round, as `mixing`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Descent,
    Finished,
    Model,
    StepInputs,
    Trained,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import APFLConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


class APFLState(NamedTuple):
    """What a client keeps.

    Attributes:
      params: v.
      batch_stats: running statistics of the mixture.
      alpha: float32 scalar, the share of v.
    """

    params: PyTree
    batch_stats: PyTree
    alpha: jax.Array

    def mixed_with(self, params: PyTree) -> Model:
        """Return the mixture with the common parameters w."""
        mixture = jax.tree.map(
            lambda v, w: self.alpha * v + (1 - self.alpha) * w, self.params, params
        )
        return Model(mixture, self.batch_stats)


class Own(NamedTuple):
    """A client's state under way, and the state of its optimiser."""

    state: APFLState
    momentum: PyTree


def apfl(settings: APFLConfig, context: AlgorithmContext) -> Algorithm:
    """Return APFL; with alpha 0, not adaptive, clients use the common parameters."""

    def init(model: Model) -> APFLState:
        return APFLState(model.params, model.batch_stats, jnp.float32(settings.alpha))

    def carries(
        state: APFLState,
        received: Model,
        broadcast: PyTree,
        optimizer: optax.GradientTransformation,
    ) -> Own:
        del received, broadcast
        return Own(state, optimizer.init(state.params))

    def descend(inputs: StepInputs) -> Descent:
        (loss, statistics), gradient = inputs.value_and_grad(inputs.model)
        return Descent(loss, statistics, gradient, _step(inputs, settings.adaptive))

    def finish(trained: Trained) -> Finished:
        state = trained.own.state
        return Finished(state, figures={"mixing": state.alpha})

    client = ClientRule(
        init=init,
        carries=carries,
        descend=descend,
        finish=finish,
        personal=lambda state, model, broadcast: state.mixed_with(model.params),
    )
    return dataclasses.replace(fedavg(None, context), client=client)


def _step(inputs: StepInputs, adaptive: bool) -> Own:
    """Return what the client carries after one step."""
    (params, _, alpha), momentum = inputs.own
    common = inputs.model.params
    (_, statistics), gradient = inputs.value_and_grad(inputs.own.state.mixed_with(common))
    share = alpha
    if adaptive:
        slopes = jax.tree.map(lambda g, v, w: jnp.sum(g * (v - w)), gradient, params, common)
        slope = sum(jax.tree.leaves(slopes))
        share = jnp.clip(alpha - inputs.rate * slope, 0.0, 1.0)
    gradient = jax.tree.map(lambda g: alpha * g, gradient)
    params, momentum = inputs.moved(params, momentum, gradient)
    return Own(APFLState(params, statistics, share), momentum)
