"""FedALA: each client learns, weight by weight, how much of the common model it takes over.

Zhang, Hua, Wang, Song, Xue, Ma, Guan. "FedALA: Adaptive Local Aggregation for Personalized
Federated Learning". AAAI 2023.

    start   y = v_i + (x - v_i) W_i   in the mixed layers,   y = x   in all others
    before  W_i <- clip( W_i - rate (grad f_i(y)) (x - v_i), 0, 1 ),   batch after batch
    server  FedAvg

v_i are the mixed layers as the client trained them last, and W_i has a number in 0 .. 1 for each of
their weights, 1 at first, which is FedAvg. State: v_i and W_i. Sent: nothing besides the model.
Cost: a forward and backward pass for a share of an epoch's batches.

Ours: W_i learns from the batches of the round's first epoch, once in every round; the authors go
over a random share of the samples, and in a client's first round until the loss settles. A client
is tested with the server's newest model mixed by its last W_i; running statistics are the server's.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Algorithm,
    Beginning,
    ClientRule,
    Finished,
    Model,
    Trained,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import chosen_layers, part, put_together
from semanticfl_jax.config import FedALAConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


class FedALAState(NamedTuple):
    """What a client keeps; both are `Model`s with None outside the mixed layers.

    Attributes:
      layers: v_i.
      weights: W_i.
    """

    layers: Model
    weights: Model

    def mixed_with(self, model: Model) -> Model:
        """Return y for the common model x."""
        common = _like(self.layers, model)
        mixed = jax.tree.map(lambda v, w, x: v + (x - v) * w, self.layers, self.weights, common)
        return put_together(mixed, model)


def fedala(settings: FedALAConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedALA; with rate 0 it is FedAvg up to rounding."""
    belongs = chosen_layers(settings.layers, context, "algorithm.fedala.layers")

    def mixed_part(model: Model) -> Model:
        return part(Model(model.params, jax.tree.map(lambda x: None, model.batch_stats)), belongs)

    def init(model: Model) -> FedALAState:
        layers = mixed_part(model)
        return FedALAState(layers, jax.tree.map(jnp.ones_like, layers))

    def begin(inputs: Beginning) -> tuple[Model, PyTree]:
        state, received = inputs.state, inputs.received
        common = _like(state.layers, received)
        # Float32 has many a share a little too large: 0.3 of 50 must not come to 16.
        share = settings.share * (1 - 1e-6)
        steps = jnp.ceil(share * inputs.steps_per_epoch).astype(jnp.int32)

        def learn(index: jax.Array, weights: Model) -> Model:
            mixed = FedALAState(state.layers, weights).mixed_with(received)
            _, gradient = inputs.value_and_grad(mixed, index)
            gradient = _like(weights, Model(gradient, received.batch_stats))

            def step(w, g, x, v):
                return jnp.clip(w - settings.rate * g * (x - v), 0.0, 1.0)

            return jax.tree.map(step, weights, gradient, common, state.layers)

        weights = jax.lax.fori_loop(0, steps, learn, state.weights)
        return FedALAState(state.layers, weights).mixed_with(received), weights

    def finish(trained: Trained) -> Finished:
        return Finished(state=FedALAState(mixed_part(trained.model), trained.own))

    client = ClientRule(
        init=init,
        begin=begin,
        finish=finish,
        personal=lambda state, model, broadcast: state.mixed_with(model),
    )
    return dataclasses.replace(fedavg(None, context), client=client)


def _like(some: Model, model: Model) -> Model:
    """Return `model` with None wherever `some` has it."""
    return jax.tree.map(
        lambda kept, x: None if kept is None else x, some, model, is_leaf=lambda x: x is None
    )
