"""From the parts of a run to its programs: what the round is built with, and what is tested."""

import dataclasses

import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    AggregationConfig,
    AlgorithmConfig,
    AvailabilityConfig,
    ClientTestConfig,
    ExperimentConfig,
    RuntimeConfig,
)
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.simulation import experiment, prepare
from tests.federation import CLASSES, SoftmaxRegression, noise_images

OPTIONS = {"model": SoftmaxRegression(CLASSES), "say": None, "progress": False}


def configuration(**changes):
    return ExperimentConfig(
        dataset="digits",
        num_clients=3,
        clients_per_round=3,
        rounds=2,
        local_epochs=1,
        batch_size=8,
        augmentation=(),
        runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
        **changes,
    )


@pytest.fixture
def built_with(monkeypatch):
    """What the round of a run is built with, by name."""

    class Captured(Exception):
        pass

    def built_with(config, **given):
        seen = {}

        def capture(local_training, algorithm, mesh, config, chunk, **options):
            seen.update(options, config=config)
            raise Captured

        monkeypatch.setattr(prepare, "make_round", capture)
        with pytest.raises(Captured):
            experiment.Simulation(config, dataset=noise_images(), **OPTIONS, **given)
        return seen

    return built_with


def test_a_round_has_the_runs_configuration_and_its_public_images(built_with):
    availability = AvailabilityConfig(dropout=0.3)
    config = configuration(
        public_per_class=2, aggregation=AggregationConfig("fltrust"), availability=availability
    )
    seen = built_with(config)
    federation = make_federation(noise_images(), config)
    assert len(federation.public) == 2 * CLASSES
    np.testing.assert_array_equal(seen["public"], federation.public)
    assert seen["config"] == config and not seen["some_empty"]


def test_a_round_knows_of_clients_without_images(built_with):
    partition = Partition(np.arange(20), [0, 9, 9, 20])
    assert built_with(configuration(public_per_class=0), partition=partition)["some_empty"]


@pytest.fixture(scope="module")
def trained():
    """Two rounds of FedDyn in which all take part: images, result, and the server's state."""
    config = configuration(public_per_class=0, algorithm=AlgorithmConfig("feddyn"))
    world = noise_images()
    with experiment.Simulation(config, dataset=world, **OPTIONS) as simulation:
        result = simulation.run()
        return world, result, jax.device_get(simulation.state)


def test_a_run_tests_and_returns_the_model_that_its_algorithm_tests(trained):
    # FedDyn's is the clients' average, without the correction that they are sent.
    world, result, state = trained
    average, sent = state.server.average["model"], state.params["model"]
    jax.tree.map(np.testing.assert_array_equal, result.params, average)
    assert any(map(np.any, jax.tree.leaves(jax.tree.map(np.not_equal, sent, average))))
    accuracy = np.mean(result.predict(world.test_images) == world.test_labels)
    assert accuracy == pytest.approx(result.history[-1]["test_accuracy"])


def test_images_a_second_are_those_that_clients_train_on(trained):
    world, result, _ = trained
    for row in result.history:
        count = row["images_per_second"] * row["seconds"]
        assert count == pytest.approx(len(world.train_labels))


@pytest.fixture
def debug_nans():
    with jax.debug_nans(True):
        yield


def test_figures_without_test_images_are_no_fault_and_training_is_checked(debug_nans):
    dataset = noise_images()
    dataset = dataclasses.replace(dataset, test_labels=np.zeros_like(dataset.test_labels))
    given = {"dataset": dataset, "partition": [[0], [1, 2, 3, 4], [5, 6, 7, 8]], **OPTIONS}
    config = configuration(client_test=ClientTestConfig(share=0.3))
    simulation = experiment.Simulation(config, **given)
    assert simulation.run().history[-1]["class_accuracy"][1] is None
    assert np.isnan(simulation.client_tests["global"].headline[0])
    # JAX's own kind of error for a compiled program is private.
    with pytest.raises(Exception, match="nan"):
        config = dataclasses.replace(config, learning_rate=1e38)
        experiment.Simulation(config, **given).run()
