"""FedNTD: the received model's opinion of the classes that an image is not of is kept.

Lee, Jeong, Shin, Bae, Yun. "Preservation of the Global Knowledge by Not-True Distillation in
Federated Learning". NeurIPS 2022.

    q(c; z) = exp(z_c / tau) / sum_{c' != y} exp(z_c' / tau),   c != y
    min_y   CE + beta tau^2 KL( q(z of the received model) | q(z of the client's) )

as a mean over the batch. Server: FedAvg. State: none. Cost: a forward pass of the received model a
step, in evaluation mode, which is a constant.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.base import Algorithm, LossTerm, TermInputs
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.config import FedNTDConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.models.losses import masked_mean


def fedntd(settings: FedNTDConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedNTD; with beta = 0 it is FedAvg, bit for bit."""
    algorithm = fedavg(None, context)
    if settings.beta == 0:
        return algorithm
    return algorithm.with_term(not_true_term(settings.beta, settings.temperature))


def not_true_term(beta: float, temperature: float) -> LossTerm:
    """Return beta times the not-true distillation."""

    def opinion(logits: jax.Array, true: jax.Array) -> jax.Array:
        """Return log q over the wrong classes; of the true one, the logarithm of nearly 0."""
        return jax.nn.log_softmax(jnp.where(true, -1e9, logits / temperature))

    def loss(inputs: TermInputs) -> jax.Array:
        logits = inputs.outputs.logits
        true = jnp.arange(logits.shape[-1])[None] == inputs.labels[:, None]
        own = opinion(logits, true)
        received = jax.lax.stop_gradient(inputs.apply(inputs.received).logits)
        common = opinion(received, true)
        each = jnp.where(true, 0.0, jnp.exp(common) * (common - own))
        distance = masked_mean(jnp.sum(each, axis=-1), inputs.mask)
        return beta * temperature**2 * distance

    return LossTerm(name="fedntd", loss=loss)
