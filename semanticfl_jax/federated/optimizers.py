"""Optimisers of the clients, as optax transformations without their learning rate.

The rate of a round is an argument of the compiled program (`rates`): a transformation returns the
direction, and the step is the rate times it, backwards.
"""

from __future__ import annotations

import optax

from semanticfl_jax.algorithms.directions import build_direction
from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.optimizer import AdamConfig, RMSPropConfig, SGDConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.registry import OPTIMIZERS


def sgd(settings: SGDConfig, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return the heavy-ball momentum of `momentum`, in PyTorch's form: v <- rho v + g."""
    momentum = context.config.momentum
    if not momentum:
        return optax.identity()
    return optax.trace(decay=momentum, nesterov=settings.nesterov)


def adam(settings: AdamConfig, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return Adam's direction, with its bias correction."""
    del context
    return optax.scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)


def rmsprop(settings: RMSPropConfig, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return RMSProp's direction."""
    del context
    return optax.scale_by_rms(decay=settings.decay, eps=settings.epsilon)


def adagrad(settings: object, context: AlgorithmContext) -> optax.GradientTransformation:
    """Return Adagrad's direction."""
    del settings, context
    return optax.scale_by_rss()


def client_optimizer(config: ExperimentConfig) -> optax.GradientTransformation:
    """Build what a client optimises with, without the rate.

    Gradients are clipped first. Weight decay then enters the gradient, before any momentum, as in
    PyTorch; where the optimiser decouples it, it is added to the direction.
    """
    entry = OPTIMIZERS[config.optimizer.name]
    settings = config.optimizer.settings[entry.name]
    direction = build_direction(entry, settings, AlgorithmContext(config))
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    decay = optax.add_decayed_weights(config.weight_decay)
    if entry.traits.decoupled:
        return optax.chain(*clip, direction, decay)
    return optax.chain(*clip, decay, direction)
