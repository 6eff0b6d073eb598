"""FedRep: each client fits its own head to the common representation, and then improves that.

Collins, Hassani, Mokhtari, Shakkottai. "Exploiting Shared Representations for Personalized
Federated Learning". ICML 2021.

    client   head_i by the first epochs of a round, with the representation of x held fixed;
             representation by the last `body_epochs`, with head_i held fixed
    server   representation' = sum_i p_i representation_i

State: the head. Sent: the representation alone. Running statistics follow every batch in both
phases. A straggler that stops early has trained its head first.
"""

import dataclasses

import jax

from semanticfl_jax.algorithms.base import Algorithm, Moment
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import chosen_layers, keeping
from semanticfl_jax.config import FedRepConfig
from semanticfl_jax.contexts import AlgorithmContext


def fedrep(settings: FedRepConfig, context: AlgorithmContext) -> Algorithm:
    """Return FedRep; what is no layer of the head, such as guidance's head, is representation."""
    belongs = chosen_layers(settings.layers, context, "algorithm.fedrep.layers")
    head_epochs = context.config.local_epochs - settings.body_epochs

    def trains(path: str, moment: Moment) -> jax.Array:
        of_head = moment.index < head_epochs * moment.steps_per_epoch
        return of_head if belongs(path) else ~of_head

    client = dataclasses.replace(keeping(belongs), trains=trains)
    return dataclasses.replace(fedavg(None, context), client=client)
