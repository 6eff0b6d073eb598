"""A small ragged federation, and rounds compiled for it; shared by tests of several folders."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms import make_algorithm
from semanticfl_jax.algorithms.fixed import trained_part
from semanticfl_jax.config import AvailabilityConfig, ExperimentConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.data.federated import federate
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh, replicated
from semanticfl_jax.federated.client_state import init_clients, join_clients
from semanticfl_jax.federated.first_contact import with_own_rows
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.federated.local_training import known_steps, make_local_training
from semanticfl_jax.federated.rates import make_rates
from semanticfl_jax.federated.round import make_round
from semanticfl_jax.federated.server_state import init_server
from semanticfl_jax.models import Network, Outputs
from semanticfl_jax.models.client_conv import Conv
from semanticfl_jax.models.normalization import BatchNorm

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
WITH_DROPOUT = dataclasses.replace(CONFIG, availability=AvailabilityConfig(dropout=0.3))
UNRELIABLE = dataclasses.replace(
    CONFIG, availability=AvailabilityConfig(dropout=0.3, straggler_share=0.5)
)


def noise_images(train=140, test=30, below=256):
    """A data set of noise, 8 x 8 pixels with values under `below`; its classes take turns."""
    rng = np.random.default_rng(0)

    def split(count):
        images = rng.integers(0, below, (count, 8, 8, 3), dtype=np.uint8)
        return images, np.arange(count, dtype=np.int32) % CLASSES

    return ImageDataset("noise", *split(train), *split(test), tuple("abcd"), MEAN, STD)


def algorithm_of(config, anchors=None, feature_dim=0, holders=None, model=None):
    """The algorithm that a configuration means, for `model`, or features of that width."""
    logits, features = (jax.ShapeDtypeStruct((1, n), jnp.float32) for n in (CLASSES, feature_dim))
    outputs, variables = Outputs(logits, features), None
    if model is not None:
        network = Network(model)
        outputs, variables = network.outputs((8, 8, 3)), network.variables((8, 8, 3))
    context = AlgorithmContext(
        config, CLASSES, outputs, anchors, holders or {}, variables=variables
    )
    return make_algorithm(context)


FEDAVG = algorithm_of(CONFIG)


class TinyNet(nn.Module):
    """Convolution, batch normalisation, pooling, classifier: what a client network is made of."""

    num_classes: int
    feature_dim: int = 6
    lowering: str = "auto"

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        x = Conv(self.feature_dim, strides=(2, 2), padding=1, lowering=self.lowering)(images)
        x = BatchNorm()(x, train=train, mask=mask)
        levels = (jnp.mean(x, axis=(1, 2)),)
        features = jnp.mean(nn.relu(x), axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes)(features), features, levels)


class SoftmaxRegression(nn.Module):
    """Logits of the means of four squares an image; they are features and level, too."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        logits = nn.Dense(self.num_classes)(squares(images))
        return Outputs(logits, logits, (logits,))


class DeepLinear(nn.Module):
    """A base and a head without biases or anything between them: gradients by hand are short."""

    num_classes: int
    feature_dim: int = 5

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        features = nn.Dense(self.feature_dim, use_bias=False, name="base")(squares(images))
        logits = nn.Dense(self.num_classes, use_bias=False, name="head")(features)
        return Outputs(logits, features)


class TwoLayers(nn.Module):
    """A base with running statistics, and a head; compiles faster than a convolution."""

    num_classes: int
    feature_dim: int = 5

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        x = squares(images)
        running = self.variable("batch_stats", "mean", lambda: jnp.zeros(12))
        if train:
            valid = jnp.ones(len(x)) if mask is None else mask.astype(jnp.float32)
            mean = jnp.sum(valid[:, None] * x, axis=0) / jnp.sum(valid)
            running.value = 0.9 * running.value + 0.1 * mean
        features = nn.tanh(self.first_layer(x - running.value[None]))
        return Outputs(nn.Dense(self.num_classes, name="head")(features), features)

    def first_layer(self, x):
        return nn.Dense(self.feature_dim, name="base")(x)


def head_only(base):
    """Two layers of which the first is constants, {"kernel": ..., "bias": ...}: the head is all."""

    class HeadOnly(TwoLayers):
        def first_layer(self, x):
            return x @ base["kernel"] + base["bias"][None]

    return HeadOnly(CLASSES)


def squares(images):
    return 4 * images.reshape(-1, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(-1, 12)


@dataclasses.dataclass(frozen=True)
class Federation:
    """Images, labels and partition of the clients, and the network they train."""

    images: np.ndarray
    labels: np.ndarray
    partition: Partition
    model: nn.Module
    key: jax.Array

    def start(self, algorithm, mesh, memory="device", versions=0):
        """Everything a round takes: state, data, shared, key."""
        shape, num_clients = self.images.shape[1:], len(self.partition.sizes)
        model = trained_part(init_model(self.model, algorithm, shape, self.key), algorithm.fixed)
        state = init_server(model, algorithm, num_clients, versions)
        classes = self.model.num_classes
        data = federate(self.images, self.labels, self.partition, classes, replicated(mesh))
        start = jax.device_put((state, data, algorithm.sent_once, self.key), replicated(mesh))
        start = (*start[:2], with_own_rows(algorithm, start[2], start[1], mesh), start[3])
        clients = init_clients(algorithm, start[0].model, num_clients, mesh, memory)
        return start[0]._replace(clients=clients), *start[1:]

    def round(
        self,
        algorithm=FEDAVG,
        devices=1,
        chunk=1,
        config=CONFIG,
        memory="device",
        skip_diverged=False,
        **options,
    ):
        """A jitted round, and what it starts from; `options` as of `make_round`."""
        mesh = make_mesh(devices)
        if skip_diverged:
            config = dataclasses.replace(config, on_divergence="skip_client")
        local = make_local_training(self.model, algorithm, config, MEAN, STD)
        parts = make_round(
            local,
            algorithm,
            mesh,
            config,
            chunk,
            steps=known_steps(self.partition.sizes, config, algorithm),
            **options,
        )
        rates = jax.tree.map(lambda x: x[0], make_rates(config)(0, 1))
        run = AtRates(join_clients(parts, mesh, memory), jax.device_put(rates, replicated(mesh)))
        return run, self.start(algorithm, mesh, memory, config.asynchronous.versions)


class AtRates:
    """A round whose learning rates are fixed."""

    def __init__(self, run, rates):
        self.run, self.rates = run, rates

    def __call__(self, *arguments):
        return self.run(*arguments, self.rates)

    def lower(self, *arguments):
        return self.run.lower(*arguments, self.rates)


def make_federation(model, sizes, seed=0, spare=4):
    """Images of noise for `model`, dealt to clients of these sizes; some belong to nobody."""
    rng = np.random.default_rng(seed)
    total = sum(sizes) + spare
    images = rng.integers(0, 256, (total, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, model.num_classes, total).astype(np.int32)
    indices = rng.permutation(total)[: sum(sizes)].astype(np.int32)
    partition = Partition(indices, np.concatenate([[0], np.cumsum(sizes)]))
    return Federation(images, labels, partition, model, jax.random.key(7))
