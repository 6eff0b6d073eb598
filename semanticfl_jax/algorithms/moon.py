"""MOON: features agree with the received model's and disagree with the client's last model's.

Li, He, Song. "Model-Contrastive Federated Learning". CVPR 2021.

    l = -log( e^(cos(z, z_glob) / tau) / ( e^(cos(z, z_glob) / tau) + e^(cos(z, z_prev) / tau) ) )
    min_y  mean( CE + mu l )

z, z_glob and z_prev are features of the same images by the model in training, by the received one
and by the one the client sent last; the latter two run in evaluation mode and are constants.
Server: FedAvg. State: every client's last model, running statistics included. Sent: nothing besides
the model. Cost: three forward passes and one backward.

Ours: features are the input of the classifier (the authors' "noheader" form: baselines keep the
same network), and the term is zero until a client has trained once; the authors compare with a
random network then, except in round 1.
"""

import dataclasses

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import (
    Algorithm,
    ClientRule,
    Finished,
    LossTerm,
    Model,
    TermInputs,
    Trained,
)
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import MoonConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.losses import masked_mean, unit
from semanticfl_jax.types import PyTree


def moon(settings: MoonConfig, context: AlgorithmContext) -> Algorithm:
    """Return MOON; with mu = 0, and for clients that train for the first time, it is FedAvg.

    Raises:
      SemanticFLError: for features of more than one row an image.
    """
    algorithm = fedavg(None, context)
    if settings.mu == 0:
        return algorithm
    features = None if context.outputs is None else context.outputs.features
    if features is not None and features.ndim != 2:
        raise SemanticFLError(
            "moon needs features [B, d], one row an image, and the model returns "
            f"[B, {', '.join(map(str, features.shape[1:]))}]: average them over positions"
        )
    algorithm = algorithm.with_term(contrast_term(settings.mu, settings.temperature))
    return dataclasses.replace(algorithm, client=ClientRule(finish=_remember, init=_nothing_yet))


def _nothing_yet(model: Model) -> PyTree:
    zeros = jax.tree.map(jnp.zeros_like, _network(model))
    return {"model": zeros, "trained": jnp.zeros((), bool)}


def _remember(trained: Trained) -> Finished:
    return Finished(state={"model": _network(trained.model), "trained": jnp.ones((), bool)})


def _network(model: Model) -> Model:
    """Drop the parameters of loss terms, which features do not need."""
    return Model({"model": model.params["model"]}, model.batch_stats)


def contrast_term(mu: float, temperature: float) -> LossTerm:
    """Return mu times the model-contrastive loss."""

    def loss(inputs: TermInputs) -> jax.Array:
        own = unit(inputs.outputs.features)
        references = (inputs.received, inputs.state["model"])
        constants = [jax.lax.stop_gradient(inputs.apply(model).features) for model in references]
        towards, away = (jnp.sum(own * unit(z), axis=-1) / temperature for z in constants)
        contrast = masked_mean(jax.nn.softplus(away - towards), inputs.mask)
        return jnp.where(inputs.state["trained"], mu * contrast, 0.0)

    return LossTerm(name="moon", loss=loss, needs=("features",))
