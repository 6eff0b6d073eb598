"""Server optimisers: the average update is the negative gradient of an optimiser step.

FedAvgM: Hsu, Qi, Brown. "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification". arXiv 1909.06335 (2019).

    v' = beta v + Delta,    x' = x + eta_g v'

FedAdam, FedYogi: Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan. "Adaptive
Federated Optimization". ICLR 2021.

    m' = b1 m + (1 - b1) Delta
    v' = b2 v + (1 - b2) Delta^2                               Adam
    v' = v - (1 - b2) Delta^2 sign(v - Delta^2)                Yogi
    x' = x + eta_g m' / (sqrt(v') + tau)                       without bias correction, v_0 = tau^2

They move trained parameters alone; running statistics are averaged by the engine, because a scaled
step could make a variance negative.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import Aggregate, ServerRule
from semanticfl_jax.config import AlgorithmConfig
from semanticfl_jax.types import PyTree


def optimizer_rule(optimizer: optax.GradientTransformation) -> ServerRule:
    """The server step of an optax optimiser, whose gradient is the negative average update."""

    def update(state: PyTree, params: PyTree, aggregate: Aggregate) -> tuple[PyTree, PyTree]:
        gradient = jax.tree.map(jnp.negative, aggregate.update)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return ServerRule(update=update, init=lambda model: optimizer.init(model.params))


def server_optimizer(config: AlgorithmConfig) -> ServerRule:
    """The optimiser that the configuration names: FedAvg's plain step unless it says otherwise."""
    kind, momentum = config.optimizer, config.server_momentum
    rate = learning_rate(config)
    if kind == "sgd":
        return optimizer_rule(optax.sgd(rate))
    if kind == "momentum":
        return optimizer_rule(optax.sgd(rate, momentum=momentum))
    adaptive = scale_by_adaptive(kind, momentum, config.server_beta2, config.server_tau)
    return optimizer_rule(optax.chain(adaptive, optax.scale_by_learning_rate(rate)))


def learning_rate(config: AlgorithmConfig) -> float:
    """eta_g; "auto" is 1, and 0.01 for adam and yogi, whose steps do not follow the update's size.

    0.01 is our choice within the range 1e-3 .. 1e-1 that FedOpt's authors search.
    """
    if config.server_learning_rate != "auto":
        return config.server_learning_rate
    return 0.01 if config.optimizer in ("adam", "yogi") else 1.0


class AdaptiveState(NamedTuple):
    """First and second moments of the update, trees of parameters."""

    first: PyTree
    second: PyTree


def scale_by_adaptive(
    kind: str, beta1: float, beta2: float, tau: float
) -> optax.GradientTransformation:
    """FedOpt's adaptive step: "adam" or "yogi" (optax's have a bias correction)."""

    def init(params: PyTree) -> AdaptiveState:
        first = jax.tree.map(jnp.zeros_like, params)
        return AdaptiveState(first, jax.tree.map(lambda x: jnp.full_like(x, tau**2), params))

    def follow(second: jax.Array, gradient: jax.Array) -> jax.Array:
        square = jnp.square(gradient)
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
