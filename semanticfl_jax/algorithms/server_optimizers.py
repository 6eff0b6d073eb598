"""Server optimisers: the average update is the negative gradient of an optimiser step.

FedAvgM: Hsu, Qi, Brown. "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification". arXiv 1909.06335 (2019).

    v' = beta v + Delta,    x' = x + eta_g v'

FedAdam, FedYogi, FedAdagrad: Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
"Adaptive Federated Optimization". ICLR 2021.

    m' = b1 m + (1 - b1) Delta
    v' = b2 v + (1 - b2) Delta^2                               Adam
    v' = v - (1 - b2) Delta^2 sign(v - Delta^2)                Yogi
    v' = v + Delta^2                                           Adagrad
    x' = x + eta_g m' / (sqrt(v') + tau)                       without bias correction, v_0 = tau^2

They move trained parameters alone; running statistics are averaged by the engine, because a scaled
step could make a variance negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import Aggregate, ServerRule
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
    entry = SERVER_OPTIMIZERS[context.config.algorithm.optimizer]
    return optimizer_rule(entry.build(None, context))


def sgd(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return the update itself."""
    del settings, context
    return optax.identity()


def momentum(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return FedAvgM's heavy ball."""
    del settings
    return optax.trace(decay=context.config.algorithm.server_momentum)


def adam(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return FedAdam's direction."""
    del settings
    return _adaptive("adam", context)


def yogi(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return FedYogi's direction."""
    del settings
    return _adaptive("yogi", context)


def adagrad(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return FedAdagrad's direction."""
    del settings
    return _adaptive("adagrad", context)


def _adaptive(kind: str, context: AlgorithmContext) -> optax.GradientTransformation:
    config = context.config.algorithm
    return scale_by_adaptive(kind, config.server_momentum, config.server_beta2, config.server_tau)


class AdaptiveState(NamedTuple):
    """First and second moments of the update, trees of parameters."""

    first: PyTree
    second: PyTree


def scale_by_adaptive(
    kind: str, beta1: float, beta2: float, tau: float
) -> optax.GradientTransformation:
    """Return FedOpt's adaptive step, "adam", "yogi" or "adagrad"; optax's correct a bias."""

    def init(params: PyTree) -> AdaptiveState:
        first = jax.tree.map(jnp.zeros_like, params)
        return AdaptiveState(first, jax.tree.map(lambda x: jnp.full_like(x, tau**2), params))

    def follow(second: jax.Array, gradient: jax.Array) -> jax.Array:
        square = jnp.square(gradient)
        if kind == "adagrad":
            return second + square
        if kind == "adam":
            return beta2 * second + (1 - beta2) * square
        return second - (1 - beta2) * square * jnp.sign(second - square)

    def update(
        gradient: PyTree, state: AdaptiveState, params: PyTree = None
    ) -> tuple[PyTree, AdaptiveState]:
        del params
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.first, gradient)
        second = jax.tree.map(follow, state.second, gradient)
        step = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + tau), first, second)
        return step, AdaptiveState(first, second)

    return optax.GradientTransformation(init, update)
