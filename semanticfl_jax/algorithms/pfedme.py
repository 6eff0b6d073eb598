"""pFedMe: clients follow the Moreau envelopes of their losses.

Dinh, Tran, Nguyen. "Personalized Federated Learning with Moreau Envelopes". NeurIPS 2020.

    theta(w)   argmin  f_i(theta) + (lambda / 2) |theta - w|^2,   by K gradient steps on one batch
    local      w <- w - eta lambda (w - theta(w))
    server     x' = (1 - beta) x + beta mean_i w_i,   beta = server_learning_rate

State: theta_i of the last step, with its running statistics: the client's own model. Sent: nothing
besides w. Cost: K forward and backward passes a step. The K steps are plain gradient steps from w
of the rate `inner_rate`; w moves by the clients' optimiser, weight decay and momentum included. Its
authors' tasks are small; lambda (`weight`) times the learning rate should stay below 1.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Descent,
    Finished,
    Model,
    StepInputs,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config import PFedMeConfig
from semanticfl_jax.contexts import AlgorithmContext


def pfedme(settings: PFedMeConfig, context: AlgorithmContext) -> Algorithm:
    """Return pFedMe; one inner step is the plain gradient, scaled by lambda inner_rate."""
    weight, rate = settings.weight, settings.inner_rate

    def descend(inputs: StepInputs) -> Descent:
        around = inputs.model.params

        def inner(index, carry):
            theta, first = carry
            (loss, statistics), gradient = inputs.value_and_grad(theta)

            def step(t, g, w):
                return t - rate * (g + weight * (t - w))

            params = jax.tree.map(step, theta.params, gradient, around)
            return Model(params, statistics), jnp.where(index == 0, loss, first)

        # Zero made of an array varies over the mesh as it does. The loss is reported at w.
        begun = inputs.model, 0.0 * inputs.count
        own, loss = jax.lax.fori_loop(0, settings.inner_steps, inner, begun)
        gradient = jax.tree.map(lambda w, t: weight * (w - t), around, own.params)
        return Descent(loss, own.batch_stats, gradient, own)

    client = ClientRule(
        init=lambda model: model,
        carries=lambda state, received, broadcast, optimizer: state,
        descend=descend,
        finish=lambda trained: Finished(state=trained.own),
        personal=lambda state, model, broadcast: state,
    )
    return dataclasses.replace(fedavg(None, context), client=client, weights=uniform)
