"""Short runs of tiny networks, which the tests of the Python interface share."""

import jax
import numpy as np

import semanticfl_jax as sfl
from tests.federation import CLASSES, MEAN, STD, TinyNet

CONFIG = sfl.ExperimentConfig(
    num_clients=2,
    clients_per_round=2,
    rounds=3,
    local_epochs=1,
    batch_size=8,
    learning_rate=0.05,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1),
)
HALVES = [np.arange(24), np.arange(24, 48)]
QUIET = {"progress": False, "say": None}


def noise_dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(70) % CLASSES
    return sfl.ImageDataset.from_arrays(
        images[:50], labels[:50], images[50:], labels[50:], mean=MEAN, std=STD
    )


def tiny(**options):
    """Arguments of a run of the tiny network on noise."""
    partition = [np.arange(25), np.arange(25, 50)]
    return {"dataset": noise_dataset(), "partition": partition, "model": TinyNet(CLASSES)} | {
        **QUIET,
        **options,
    }


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
