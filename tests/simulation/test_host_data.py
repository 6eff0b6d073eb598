"""Runs whose images stay in host memory: the same numbers to the bit as on the devices."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.config import (
    AggregationConfig,
    AlgorithmConfig,
    AvailabilityConfig,
    ClientTestConfig,
    ConfigError,
    ExperimentConfig,
    PartitionConfig,
    RuntimeConfig,
)
from semanticfl_jax.data.federated import federate
from semanticfl_jax.data.host_images import HostImages, largest_share
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh, replicated
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.simulation import experiment, pipeline
from tests.federation import CLASSES, MEAN, STD, TwoLayers
from tests.results import require_same

CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=9,
    clients_per_round=5,
    rounds=4,
    local_epochs=1,
    batch_size=8,
    public_per_class=2,
    partition=PartitionConfig(scheme="quantity"),
    eval_every=2,
    checkpoint_every=2,
    runtime=RuntimeConfig(num_devices=2, eval_batch_size=16),
)


@pytest.fixture(scope="module")
def small_world(tmp_path_factory):
    """A data set of noise whose training images are memory-mapped."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("images") / "train.npy"
    np.save(path, images)
    labels = np.arange(200, dtype=np.int32) % CLASSES
    train = np.load(path, mmap_mode="r")
    return ImageDataset("noise", train, labels, images[:30], labels[:30], tuple("abcd"), MEAN, STD)


@pytest.fixture(scope="module")
def run(small_world):
    def run(config, directory=None, model=TwoLayers(CLASSES), **options):  # noqa: B008
        return experiment.run(
            config, directory, dataset=small_world, model=model, say=None, progress=False, **options
        )

    return run


def test_gathered_images_are_those_of_the_clients(small_world):
    partition = Partition(np.random.default_rng(1).permutation(200)[:60], [0, 10, 10, 45, 60])
    mesh = make_mesh(2)
    labels = small_world.train_labels
    data = federate(
        small_world.train_images, labels, partition, CLASSES, replicated(mesh), with_images=False
    )
    assert data.images is None
    images = HostImages(small_world.train_images, partition, mesh, most=2)
    assert images.capacity == largest_share(partition.sizes, 2) == 35 + 15
    clients = np.array([3, -1, 1, 2], np.int32)
    here = images.of(data, clients)
    expected = images.shapes(data, len(clients))
    for name in ("images", "cohort", "starts"):
        found, shape = getattr(here, name), getattr(expected, name)
        assert (found.shape, found.dtype, found.sharding) == (
            shape.shape,
            shape.dtype,
            shape.sharding,
        )
    np.testing.assert_array_equal(here.cohort, clients)
    pictures, starts = np.asarray(here.images), np.asarray(here.starts)
    for place, client in enumerate(clients):
        if client >= 0:
            begin = place // 2 * images.capacity + starts[place]
            own = small_world.train_images[partition.client(client)]
            found = pictures[begin : begin + len(own)]
            np.testing.assert_array_equal(found, own.reshape(len(own), 8 * 8 * 3))


def test_same_numbers_of_clients_side_by_side(run):
    config = CONFIG.with_runtime(clients_per_chunk=2)
    require_same(run(config), run(config.with_runtime(data_memory="host")))


def test_same_numbers_ahead_with_empty_places_and_dropout(run, monkeypatch):
    config = dataclasses.replace(
        CONFIG, availability=AvailabilityConfig(sampling="poisson", dropout=0.2)
    )
    expected = run(config)
    monkeypatch.setattr(pipeline, "runs_ahead", lambda config: True)
    require_same(expected, run(config.with_runtime(data_memory="host")))


@pytest.mark.parametrize("states", ["device", "host"])
def test_same_numbers_with_states_of_clients(run, states):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name="scaffold"))
    found = run(config.with_runtime(data_memory="host", client_state_memory=states))
    require_same(run(config), found)


def test_same_numbers_of_all_clients_on_their_own_images(run):
    config = dataclasses.replace(
        CONFIG,
        algorithm=AlgorithmConfig(name="fedper"),
        client_test=ClientTestConfig(share=0.2, every=2, fine_tune_steps=2),
    )
    require_same(run(config), run(config.with_runtime(data_memory="host")))


@pytest.mark.parametrize(("first", "then"), [("host", "device"), ("device", "host")])
def test_a_run_is_resumed_from_either_memory(run, small_world, tmp_path, first, then):
    simulation = experiment.Simulation(
        CONFIG.with_runtime(data_memory=first),
        dataset=small_world,
        model=TwoLayers(CLASSES),
        workdir=tmp_path,
        say=None,
        progress=False,
    )
    simulation.run(2)
    simulation.close()
    assert (tmp_path / "checkpoints").exists()
    done = run(CONFIG.with_runtime(data_memory=then), tmp_path)
    require_same(run(CONFIG), done)


def test_what_does_not_go_together_is_refused(run):
    with pytest.raises(ConfigError, match='rounds_per_dispatch must be "auto" or 1'):
        RuntimeConfig(data_memory="host", rounds_per_dispatch=4)
    config = dataclasses.replace(CONFIG, aggregation=AggregationConfig(aggregator="fltrust"))
    with pytest.raises(SemanticFLError, match="data_memory must be device with fltrust"):
        run(config.with_runtime(data_memory="host"))
