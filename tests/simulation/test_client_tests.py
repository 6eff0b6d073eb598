"""A run whose clients keep images for testing: rows, files, advice, and going on."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.reporting.client_tests import is_field
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation.experiment import Simulation
from tests.federation import CLASSES, DeepLinear, noise_images

CONFIG = from_dict(
    ExperimentConfig,
    {
        "dataset": "digits",
        "num_clients": 6,
        "clients_per_round": 3,
        "rounds": 4,
        "local_epochs": 1,
        "batch_size": 8,
        "public_per_class": 0,
        "augmentation": [],
        "eval_every": 4,
        "checkpoint_every": 3,
        "algorithm": {"name": "fedper"},
        "client_test": {"share": 0.25, "every": 3, "fine_tune_steps": 2},
        "runtime": {"num_devices": 1},
    },
)


@pytest.fixture(scope="module")
def simulate():
    data = noise_images()

    def simulate(config, directory=None, say=None):
        options = {"dataset": data, "model": DeepLinear(CLASSES), "progress": False, "say": say}
        return Simulation(config, workdir=directory, **options)

    return simulate


def of_clients(rows):
    return [{name: row[name] for name in row if is_field(name)} for row in rows]


def test_all_clients_are_tested_when_it_is_due(simulate, tmp_path):
    with simulate(CONFIG, tmp_path / "whole") as simulation:
        summary = simulation.run().summary
    rows = read_metrics(tmp_path / "whole")
    assert ["personal_client_accuracy" in row for row in rows] == [False, False, True, True]
    assert ["test_accuracy" in row for row in rows] == [False, False, False, True]
    assert of_clients([summary]) == of_clients(rows[3:])
    with np.load(tmp_path / "whole" / "client_tests.npz") as arrays:
        assert len(arrays) == 6 and arrays["personal_accuracy"].shape == (6,)
        mean = np.nanmean(arrays["fine_tuned_accuracy"])
    np.testing.assert_allclose(mean, rows[3]["fine_tuned_client_accuracy"], rtol=1e-6)
    assert (tmp_path / "whole" / "plots" / "client_tests.png").is_file()

    # Made longer later, a run of three rounds becomes that run.
    for rounds in (3, 4):
        config = dataclasses.replace(CONFIG, rounds=rounds)
        with simulate(config, tmp_path / "longer") as simulation:
            simulation.run()
    assert of_clients(read_metrics(tmp_path / "longer")) == of_clients(rows)


def test_models_that_nobody_tests_are_spoken_of(simulate):
    lines = []
    config = dataclasses.replace(CONFIG, client_test=type(CONFIG.client_test)())
    with simulate(config, say=lines.append) as simulation:
        assert simulation.client_tests is None
    assert any("client_test.share=0.2 keeps a fifth" in line for line in lines)
