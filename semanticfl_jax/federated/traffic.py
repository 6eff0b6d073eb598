"""What clients and server send each other in a round, in bytes; nothing is really sent."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from semanticfl_jax.algorithms.base import Algorithm, LossTerm
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.federated.client_update import extra_shapes
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.types import PyTree


class Traffic(NamedTuple):
    """Bytes by direction and occasion.

    What a client keeps begins as the initial model, or a part of it; that is not counted, as if the
    client drew it by the seed. Nor are reports that are thrown away in asynchronous rounds.

    Attributes:
      up: of one client in a round: the part of its model that travels, as its transforms leave
        it, and what the client rule adds.
      down: to one client in a round: the same part of the model, and what the server broadcasts
        besides.
      up_once: of one client at its first contact.
      down_once: to each client at its first contact: anchors, for instance, and the parameters
        that nobody trains; int64 [num_clients].
    """

    up: int
    down: int
    up_once: int
    down_once: np.ndarray

    def of_round(self, metrics: RoundMetrics) -> dict[str, int]:
        """Return `bytes_up` and `bytes_down` of a round; who drops out has received, not sent."""
        cohort, new = np.asarray(metrics.cohort), np.asarray(metrics.new)
        reported = int(np.sum(metrics.reported))
        return {
            "bytes_up": reported * self.up + int(new.sum()) * self.up_once,
            "bytes_down": int(np.sum(cohort >= 0)) * self.down
            + int(self.down_once[cohort[new]].sum()),
        }


def make_traffic(algorithm: Algorithm, state: ServerState, data: FederatedDataset) -> Traffic:
    """Count what `algorithm` sends, of the shapes alone."""
    shapes = travelling(algorithm, jax.eval_shape(lambda model: model, state.model))
    model = up = size_in_bytes(shapes)
    for transform in algorithm.transforms:
        up = transform.bytes_up(shapes, up)
    up = algorithm.aggregator.bytes_up(shapes, up)
    broadcast = size_in_bytes(jax.eval_shape(algorithm.server.broadcast, state.server))
    broadcast += size_in_bytes(jax.eval_shape(algorithm.aggregator.broadcast, state.aggregator))
    extra = 0
    if algorithm.client is not None and algorithm.client.sends_extra:
        extra = size_in_bytes(extra_shapes(algorithm, jax.eval_shape(lambda s: s.model, state)))
    counts = data.label_counts
    fixed = np.full(data.sizes.shape, size_in_bytes(algorithm.fixed), np.int64)
    return Traffic(
        up=up + extra,
        down=model + broadcast + algorithm.aggregator.bytes_down,
        up_once=counts.shape[1] * counts.dtype.itemsize if algorithm.sends_label_counts else 0,
        down_once=sum(
            (
                _sent_once(term, np.asarray(data.sizes), len(data.labels))
                for term in algorithm.terms
            ),
            fixed,
        ),
    )


def _sent_once(term: LossTerm, sizes: np.ndarray, samples: int) -> np.ndarray:
    """Return the bytes of a term's entries that each client receives, int64 [num_clients]."""
    total = np.zeros(sizes.shape, np.int64)
    for name, entry in _named(term.shared):
        total += size_in_bytes(entry) * np.asarray(term.holders.get(name, True))
    for name, entry in _named(term.per_sample):
        a_sample = size_in_bytes(entry) // samples
        total += sizes * a_sample * np.asarray(term.holders.get(name, True))
    return total


def _named(entries: PyTree) -> list[tuple[str, PyTree]]:
    return list(entries.items()) if isinstance(entries, Mapping) else [("", entries)]
