"""FedAdam, FedYogi and FedAdagrad: adaptive optimisers at the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan.
"Adaptive Federated Optimization". ICLR 2021.

    m' = b1 m + (1 - b1) Delta
    v' = b2 v + (1 - b2) Delta^2                               Adam
    v' = v - (1 - b2) Delta^2 sign(v - Delta^2)                Yogi
    v' = v + Delta^2                                           Adagrad
    x' = x + eta_g m' / (sqrt(v') + tau)                       without bias correction, v_0 = tau^2

b1 is `server_momentum`, 0.9 by default in all three; Flower's FedAdagrad has no first moment, which
is b1 = 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.types import PyTree


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
