"""The server's own training, on the public split, for aggregators that compare clients with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.federated.client_update import init_state, rule_state
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import LocalTraining
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.types import PyTree


def train_root(
    local_training: LocalTraining,
    algorithm: Algorithm,
    model: Model,
    broadcast: Broadcast,
    shared: PyTree,
    data: FederatedDataset,
    public: np.ndarray,
    key: jax.Array,
) -> Model:
    """Return the update of a client that holds the public split, and attacks nobody.

    Args:
      local_training: as a client's.
      algorithm: its client rule and which part of the model travels.
      model: the server's.
      broadcast: what clients receive besides.
      shared: `Algorithm.sent_once`.
      data: all images.
      public: int [p], those that the server holds.
      key: of the round, in the stream `ROOT`.
    """
    classes = data.label_counts.shape[1]
    which = data.labels[public][:, None] == jnp.arange(classes)[None]
    counts = jnp.sum(which, axis=0, dtype=jnp.int32)
    own = data.replace(
        label_counts=jnp.broadcast_to(counts, data.label_counts.shape),
        indices=jnp.asarray(public, jnp.int32),
        offsets=jnp.zeros_like(data.offsets),
        sizes=jnp.full_like(data.sizes, len(public)),
        max_size=len(public),
    )
    nobody = jnp.int32(data.sizes.shape[0])  # beyond the last client, who may attack
    state = rule_state(init_state(algorithm, model))
    broadcast = broadcast._replace(slots=None, newest=None)
    # The server has all that it sends.
    shared = {
        name: (common, of_samples, jax.tree.map(jnp.ones_like, holders))
        for name, (common, of_samples, holders) in shared.items()
    }
    trained = local_training.alone(model, broadcast, shared, own, nobody, state, key)
    return travelling(algorithm, jax.tree.map(jnp.subtract, trained.model, model))
