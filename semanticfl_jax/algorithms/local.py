"""Local training: every client for itself, the baseline of personal models.

    v_i' = v_i after E epochs on the client's own images,   v_i = the initial model at first

State: the client's model, running statistics and the parameters of loss terms included. Sent:
nothing, so that the server's model stays the initial one and its test says nothing.
"""

import dataclasses

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.algorithms.fedavg import fedavg
from semanticfl_jax.algorithms.parts import keeping
from semanticfl_jax.contexts import AlgorithmContext


def local(settings: object, context: AlgorithmContext) -> Algorithm:
    """Return local training; what a client keeps of the model is all of it."""
    del settings
    return dataclasses.replace(fedavg(None, context), client=keeping(lambda path: True))
