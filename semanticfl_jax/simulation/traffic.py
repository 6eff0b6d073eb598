"""What clients and server send each other in a round, in bytes; nothing is really sent."""

from typing import Any, NamedTuple

import jax
import numpy as np

from semanticfl_jax.algorithms.base import Algorithm, Model, Trained
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.simulation.memory import size_in_bytes
from semanticfl_jax.simulation.round import RoundMetrics, ServerState

PyTree = Any


class Traffic(NamedTuple):
    """Bytes by direction and occasion.

    Attributes:
      up: of one client in a round: its model, and what the algorithm adds.
      down: to one client in a round: the model, and what the server broadcasts besides.
      up_once: of one client at its first contact.
      down_once: to one client at its first contact: anchors, for instance.
      down_per_sample: besides, for each of its training samples.
    """

    up: int
    down: int
    up_once: int
    down_once: int
    down_per_sample: int

    def of_round(self, metrics: RoundMetrics) -> dict[str, int]:
        """`bytes_up` and `bytes_down` of a whole round."""
        participants = int(np.sum(np.asarray(metrics.cohort) >= 0))
        new, samples = int(metrics.new_contacts), int(metrics.new_samples)
        return {
            "bytes_up": participants * self.up + new * self.up_once,
            "bytes_down": participants * self.down
            + new * self.down_once
            + samples * self.down_per_sample,
        }


def make_traffic(algorithm: Algorithm, state: ServerState, data: FederatedDataset) -> Traffic:
    """Counts what `algorithm` sends, of the shapes alone."""
    model = size_in_bytes(state.model)
    broadcast = size_in_bytes(jax.eval_shape(algorithm.server.broadcast, state.server))
    extra = 0
    if algorithm.client is not None and algorithm.client.sends_extra:
        extra = size_in_bytes(_extra(algorithm, state))
    counts = data.label_counts
    samples = len(data.labels)
    return Traffic(
        up=model + extra,
        down=model + broadcast,
        up_once=counts.shape[1] * counts.dtype.itemsize if algorithm.sends_label_counts else 0,
        down_once=size_in_bytes([term.shared for term in algorithm.terms]),
        down_per_sample=size_in_bytes([term.per_sample for term in algorithm.terms]) // samples,
    )


def _extra(algorithm: Algorithm, state: ServerState) -> PyTree:
    """Shapes of what a client sends besides its model."""

    def finish(model: Model, server: PyTree, steps: jax.Array, number: jax.Array) -> PyTree:
        own, broadcast = algorithm.client.init(model), algorithm.server.broadcast(server)
        trained = Trained(own, broadcast, model, model, steps, weight=number, loss=number)
        return algorithm.client.finish(trained).extra

    steps, number = jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.float32)
    return jax.eval_shape(finish, state.model, state.server, steps, number)
