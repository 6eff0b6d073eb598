"""Server optimisers: the average update is the negative gradient of an optimiser step.

FedAvgM: Hsu, Qi, Brown. "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification". arXiv 1909.06335 (2019).

    v' = beta v + Delta,    x' = x + eta_g v'

FedAdam, FedYogi and FedAdagrad are in `fedadam.py`.

They move trained parameters alone; running statistics are averaged by the engine, because a scaled
step could make a variance negative.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import Aggregate, ServerRule
from semanticfl_jax.algorithms.directions import build_direction
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.registry import SERVER_OPTIMIZERS
from semanticfl_jax.types import PyTree


def optimizer_rule(optimizer: optax.GradientTransformation) -> ServerRule:
    """Return the server step of an optax optimiser without its rate.

    Its gradient is the negative average update; the step is the round's rate times its direction.
    """

    def update(state: PyTree, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, PyTree]:
        gradient = jax.tree.map(jnp.negative, aggregate.update)
        direction, state = optimizer.update(gradient, state, params)
        step = jax.tree.map(lambda x: -aggregate.rate * x, direction)
        return optax.apply_updates(params, step), state

    return ServerRule(update=update, init=lambda model: optimizer.init(model.params))


def server_optimizer(context: AlgorithmContext) -> ServerRule:
    """Return the step of the optimiser that is configured: FedAvg's unless it says otherwise."""
    name = context.config.algorithm.optimizer
    rule = optimizer_rule(build_direction(SERVER_OPTIMIZERS[name], None, context))
    return dataclasses.replace(rule, optimizer=name)


def sgd(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return the update itself."""
    del settings, context
    return optax.identity()


def momentum(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return FedAvgM's heavy ball."""
    del settings
    return optax.trace(decay=context.config.algorithm.server_momentum)
