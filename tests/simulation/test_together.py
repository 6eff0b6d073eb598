"""Several seeds as one program: what each writes is what it would have written alone."""

import dataclasses
import os
import signal

import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    AlgorithmConfig,
    AttackConfig,
    ConfigError,
    ExperimentConfig,
    PartitionConfig,
    RuntimeConfig,
)
from semanticfl_jax.errors import SemanticFLError, Stopped
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation import experiment, parts, together
from semanticfl_jax.simulation.callbacks import Callback
from tests.federation import CLASSES, TwoLayers, noise_images

CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=6,
    clients_per_round=4,
    rounds=4,
    local_epochs=1,
    batch_size=8,
    public_per_class=2,
    learning_rate=0.05,
    partition=PartitionConfig(scheme="quantity"),
    algorithm=AlgorithmConfig(name="scaffold"),
    eval_every=2,
    checkpoint_every=2,
    runtime=RuntimeConfig(num_devices=2, eval_batch_size=16, rounds_per_dispatch=1),
)
SEEDS = (0, 1)


def with_seeds(config=CONFIG, seeds=SEEDS):
    return {f"run-seed{seed}": dataclasses.replace(config, seed=seed) for seed in seeds}


@pytest.fixture(scope="module")
def noise():
    return noise_images()


@pytest.fixture(scope="module")
def options(noise):
    return {"dataset": noise, "model": TwoLayers(CLASSES), "say": None, "progress": False}


@pytest.fixture(scope="module")
def alone(options, tmp_path_factory):
    """Each seed by itself."""
    directory = tmp_path_factory.mktemp("alone")
    for name, config in with_seeds().items():
        experiment.run(config, directory / name, **options)
    return directory


class Stop(Callback):
    """Asks one run to stop after a round."""

    def __init__(self, number):
        self.number = number

    def on_round(self, simulation, step):
        if step.round == self.number and simulation.config.seed == SEEDS[-1]:
            os.kill(os.getpid(), signal.SIGINT)


def require_near(directory, other):
    for name in with_seeds():
        rows, expected = (read_metrics(path / name) for path in (directory, other))
        assert [row["round"] for row in rows] == [row["round"] for row in expected]
        for row, known in zip(rows, expected, strict=True):
            assert row.keys() == known.keys()
            for field in ("train_loss", "test_loss"):
                if field in known:
                    assert row[field] == pytest.approx(known[field], rel=1e-4)
            assert (row["bytes_up"], row["bytes_down"]) == (known["bytes_up"], known["bytes_down"])
        models = [
            experiment.load_model(path / name / "model.safetensors", TwoLayers(CLASSES))
            for path in (directory, other)
        ]
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
            *(model.params for model in models),
        )


def test_seeds_together_are_seeds_alone(alone, options, tmp_path):
    assert together.run_together(with_seeds(), tmp_path, **options) == []
    require_near(tmp_path, alone)
    losses = {read_metrics(tmp_path / name)[-1]["train_loss"] for name in with_seeds()}
    assert len(losses) == len(SEEDS)
    # Again: all are finished, and nothing is trained.
    assert together.run_together(with_seeds(), tmp_path, **options) == []


def test_seeds_are_stopped_and_resumed_together(alone, options, tmp_path):
    with pytest.raises(Stopped, match="stopped after round 3"):
        together.run_together(with_seeds(), tmp_path, callbacks=[Stop(2)], **options)
    assert len(read_metrics(tmp_path / "run-seed0")) == 3
    together.run_together(with_seeds(), tmp_path, **options)
    require_near(tmp_path, alone)


class Fail(Callback):
    """Fails in one run after a round without a checkpoint."""

    def on_round(self, simulation, step):
        if step.round == 3 and simulation.config.seed == SEEDS[-1]:
            raise OSError("no more room")


def test_when_one_seed_fails_all_go_on_from_the_same_checkpoint(alone, options, tmp_path):
    with pytest.raises(OSError, match="no more room"):
        together.run_together(with_seeds(), tmp_path, callbacks=[Fail()], **options)
    for name in with_seeds():
        saved = {path.name for path in (tmp_path / name / "checkpoints").iterdir()}
        assert saved == {"2"}
    together.run_together(with_seeds(), tmp_path, **options)
    require_near(tmp_path, alone)


def test_what_cannot_be_one_program_is_refused(options, tmp_path):
    several = with_seeds()
    several["run-seed9"] = dataclasses.replace(CONFIG, seed=9, learning_rate=0.5)
    with pytest.raises(ConfigError, match="must differ in the seed alone"):
        together.check_together(several)
    attacked = dataclasses.replace(
        CONFIG, algorithm=AlgorithmConfig(), attack=AttackConfig(name="sign_flip")
    )
    with pytest.raises(ConfigError, match=r"attack.name must be none where seeds are one program"):
        together.check_together(with_seeds(attacked))
    with pytest.raises(ConfigError, match=r"runtime.data_memory must be device"):
        together.check_together(with_seeds(CONFIG.with_runtime(data_memory="host")))


def test_an_algorithm_that_holds_something_of_the_seed_is_found_out(options, tmp_path):
    made = parts.make_algorithm

    def of_seed(context):
        drawn = np.float32(np.random.default_rng(context.config.seed).uniform())
        built = made(context)
        weights = built.weights
        return dataclasses.replace(built, weights=lambda *given: weights(*given) * drawn)

    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "make_algorithm", of_seed)
        with pytest.raises(SemanticFLError, match="builds something drawn by the seed"):
            together.run_together(with_seeds(config), tmp_path, **options)
