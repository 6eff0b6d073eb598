"""A small ragged federation, and rounds compiled for it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import Algorithm, guidance_term
from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.data.federated import federate
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.models import Outputs
from semanticfl_jax.models.client_conv import Conv
from semanticfl_jax.models.normalization import BatchNorm
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.local_training import make_local_training
from semanticfl_jax.simulation.mesh import make_mesh, replicated
from semanticfl_jax.simulation.prepare import init_params
from semanticfl_jax.simulation.round import init_server, make_round

SIZES = (3, 5, 8, 13, 1, 20, 10)
CLASSES = 4
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)

CONFIG = ExperimentConfig(
    num_clients=len(SIZES),
    clients_per_round=5,
    local_epochs=2,
    batch_size=4,
    learning_rate=0.05,
    weight_decay=1e-3,
)

FEDAVG = Algorithm("fedavg")


class TinyNet(nn.Module):
    """Convolution, batch normalisation, pooling, classifier: what a client network is made of."""

    num_classes: int
    feature_dim: int = 6

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        x = Conv(self.feature_dim, strides=(2, 2), padding=1)(images)
        x = nn.relu(BatchNorm()(x, train=train, mask=mask))
        features = jnp.mean(x, axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes)(features), features)


@dataclasses.dataclass(frozen=True)
class Federation:
    """Images, labels and partition of the clients, and the network they train."""

    images: np.ndarray
    labels: np.ndarray
    partition: Partition
    model: nn.Module
    key: jax.Array

    def start(self, algorithm, mesh):
        """Everything a round takes: state, data, shared, key."""
        shape = self.images.shape[1:]
        params, batch_stats = init_params(self.model, algorithm, shape, self.key)
        state = init_server(params, batch_stats, algorithm, len(SIZES))
        data = federate(self.images, self.labels, self.partition, CLASSES, replicated(mesh))
        return jax.device_put((state, data, algorithm.sent_once, self.key), replicated(mesh))

    def round(self, algorithm=FEDAVG, devices=1, chunk=1, config=CONFIG):
        """A jitted round, and what it starts from."""
        mesh = make_mesh(devices)
        local = make_local_training(self.model, algorithm.terms, config, MEAN, STD)
        run = make_round(
            local,
            algorithm,
            mesh,
            clients_per_round=config.clients_per_round,
            clients_per_chunk=chunk,
            batch_size=config.batch_size,
        )
        return run, self.start(algorithm, mesh)


@pytest.fixture(scope="session")
def federation():
    rng = np.random.default_rng(0)
    total = sum(SIZES) + 4
    images = rng.integers(0, 256, (total, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, total).astype(np.int32)
    indices = rng.permutation(total)[: sum(SIZES)].astype(np.int32)
    partition = Partition(indices, np.concatenate([[0], np.cumsum(SIZES)]))
    return Federation(images, labels, partition, TinyNet(CLASSES), jax.random.key(7))


@pytest.fixture(scope="session")
def guided(federation):
    """SemanticFL on the federation, with made-up anchors."""
    rng = np.random.default_rng(1)
    visual, text = rng.normal(size=(CLASSES, 6)), rng.normal(size=(CLASSES, 6))
    visual, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (visual, text))
    anchors = Anchors(visual.astype(np.float32), text.astype(np.float32), tuple("abcd"), {}, {}, 0)
    term = guidance_term(anchors, GuidanceConfig(lambda_con=0.5), federation.model.feature_dim)
    return Algorithm("semanticfl").with_term(term)
