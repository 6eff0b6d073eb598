"""Ditto: a model of each client's own, held near the common one, which is trained as ever.

Li, Hu, Beirami, Smith. "Ditto: Fair and Robust Federated Learning Through Personalization".
ICML 2021.

    common   FedAvg
    own      min_v  f_i(v) + (lambda / 2) |v - x|^2   by local SGD from v_i, x the received model

State: v_i with its running statistics, the initial model at first. Sent: nothing besides the model.
Cost: a second forward and backward pass a step. Ours: v_i takes as many steps as y_i, on the same
batches, with the clients' optimiser; `clip_norm` and weight decay act on each of the two alone. The
pull acts on trained parameters, not on running statistics.
"""

import dataclasses
from typing import NamedTuple

import jax
import optax

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Descent,
    Finished,
    Model,
    StepInputs,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import DittoConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


class Own(NamedTuple):
    """A client's own model under way.

    Attributes:
      model: v_i.
      momentum: state of its optimiser.
    """

    model: Model
    momentum: PyTree


def ditto(settings: DittoConfig, context: AlgorithmContext) -> Algorithm:
    """Return Ditto; with weight 0 every client's own model is that of local training."""

    def carries(
        state: Model,
        received: Model,
        broadcast: PyTree,
        optimizer: optax.GradientTransformation,
    ) -> Own:
        del received, broadcast
        return Own(state, optimizer.init(state.params))

    def descend(inputs: StepInputs) -> Descent:
        (loss, statistics), gradient = inputs.value_and_grad(inputs.model)
        return Descent(loss, statistics, gradient, _step(inputs, settings.weight))

    client = ClientRule(
        init=lambda model: model,
        carries=carries,
        descend=descend,
        finish=lambda trained: Finished(state=trained.own.model),
        personal=lambda state, model, broadcast: state,
    )
    return dataclasses.replace(fedavg(None, context), client=client)


def _step(inputs: StepInputs, weight: float) -> Own:
    """Return the client's own model after one step."""
    (params, _), momentum = inputs.own
    (_, statistics), gradient = inputs.value_and_grad(inputs.own.model)
    gradient = jax.tree.map(
        lambda g, v, x: g + weight * (v - x), gradient, params, inputs.received.params
    )
    params, momentum = inputs.moved(params, momentum, gradient)
    return Own(Model(params, statistics), momentum)
