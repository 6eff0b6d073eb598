"""Clients trained one by one, and what was drawn for them, for comparisons in plain NumPy."""

import jax
import numpy as np

from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import make_local_training
from tests.federation import FEDAVG, MEAN, STD


class ByHand:
    """Trains single clients of a federation whose clients keep nothing; by default with FedAvg."""

    def __init__(self, federation, config, algorithm=FEDAVG):
        self.federation, self.config = federation, config
        training = make_local_training(federation.model, algorithm, config, MEAN, STD)
        self.alone = jax.jit(training.alone)

    def train(self, model, data, key, number, client, shared=None):
        """Return the client's model after round `number`, of what it starts from; NumPy."""
        own_key = self.key(key, 1, number, client)
        sent = Broadcast((), np.float32(self.config.learning_rate))
        model = self.alone(model, sent, shared or {}, data, client, (), own_key).model
        return jax.tree.map(np.array, model)

    def key(self, key, *numbers):
        """Return the key with numbers folded in."""
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key


def reported(metrics):
    """Return the ids of those who trained, in ascending order."""
    return sorted(int(c) for c in np.asarray(metrics.cohort)[np.asarray(metrics.reported)])


def combine(function, *trees):
    """Return `function` of the stacked leaves of several trees."""
    return jax.tree.map(lambda *leaves: function(np.stack(leaves)), *trees)


def minus(a, b):
    """Return the difference of two trees, NumPy."""
    return jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), a, b)


def plus(a, b):
    """Return the sum of two trees, NumPy."""
    return jax.tree.map(lambda x, y: np.asarray(x) + np.asarray(y), a, b)


def host(tree):
    """Return a copy on the host, which outlives donated arrays."""
    return jax.tree.map(np.array, tree)
