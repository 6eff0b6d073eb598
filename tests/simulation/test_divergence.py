"""A run whose numbers stop being finite: said at once, in the rows and in the summary."""

import dataclasses
import json

import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.errors import DivergedError
from semanticfl_jax.reporting.writers.metrics import read_metrics
from tests.federation import CLASSES, MEAN, STD, SoftmaxRegression

CONFIG = sfl.ExperimentConfig(
    dataset="digits",
    num_clients=4,
    clients_per_round=2,
    rounds=4,
    local_epochs=1,
    batch_size=8,
    learning_rate=1e30,
    public_per_class=0,
    partition=sfl.PartitionConfig("iid"),
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1),
)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % CLASSES
    return sfl.ImageDataset.from_arrays(
        images[:48], labels[:48], images[48:], labels[48:], mean=MEAN, std=STD
    )


@pytest.fixture
def run(dataset):
    def run(config, workdir, **options):
        model = SoftmaxRegression(CLASSES)
        return sfl.run(config, workdir, dataset=dataset, model=model, progress=False, **options)

    return run


def test_a_run_that_diverges_says_so_once_and_in_its_files(run, tmp_path):
    lines = []
    summary = run(CONFIG, tmp_path, say=lines.append).summary
    (warning,) = [line for line in lines if line.startswith("warning: ")]
    rows = read_metrics(tmp_path)
    first = summary["diverged_round"]
    assert warning.startswith(f"warning: round {first}: not finite: ")
    assert [row["round"] for row in rows if "diverged" in row] == list(range(first, 5))
    told = next(row for row in rows if row["round"] == first)
    clients = told["diverged_clients"]
    assert len(clients) == told["diverged_count"] > 0
    assert f"(client{'s' * (len(clients) > 1)} {', '.join(map(str, clients))})" in warning
    assert json.loads((tmp_path / "summary.json").read_text())["diverged_round"] == first


def test_a_run_may_stop_there_and_be_taken_up_from_the_round_before(run, tmp_path):
    config = dataclasses.replace(CONFIG, on_divergence="stop")
    with pytest.raises(DivergedError, match=r"round \d: not finite: .*stopped") as error:
        run(config, tmp_path, say=None)
    first = json.loads((tmp_path / "summary.json").read_text())["diverged_round"]
    assert f"round {first}:" in str(error.value)
    assert [row["round"] for row in read_metrics(tmp_path)] == list(range(1, first + 1))
    # Whether the run stops does not decide its results: one may change one's mind.
    lines = []
    summary = run(CONFIG, tmp_path, say=lines.append).summary
    assert summary["rounds"] == 4 and summary["diverged_round"] == first
    assert any("resuming after round" in line for line in lines) == (first > 1)


def test_a_run_may_leave_such_clients_out(run, tmp_path):
    config = dataclasses.replace(CONFIG, on_divergence="skip_client")
    lines = []
    result = run(config, tmp_path, say=lines.append)
    summary, counts = result.summary, [row.get("diverged_count", 0) for row in result.history]
    assert summary["diverged_round"] is None
    assert summary["skipped_clients"] == sum(counts) > 0
    assert all(np.isfinite(leaf).all() for leaf in result.params["Dense_0"].values())
    assert next(line for line in lines if line.startswith("warning: round")).endswith(
        "whose loss or update is not finite (on_divergence=skip_client)"
    )
    # It decides the results, so that one cannot go on without.
    with pytest.raises(sfl.ConfigError, match="on_divergence was 'skip_client', is 'warn'"):
        run(dataclasses.replace(CONFIG, rounds=5), tmp_path, say=None)


def test_a_run_that_converges_has_no_such_columns(run, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=0.01)
    result = run(config, None, say=None)
    assert result.summary["diverged_round"] is None
    assert not any(name.startswith("diverged") for row in result.history for name in row)


def test_models_of_the_clients_own_that_diverge_are_spoken_of(run, tmp_path):
    ditto = sfl.AlgorithmConfig("ditto", settings={"weight": 1e12})
    config = dataclasses.replace(
        CONFIG,
        algorithm=ditto,
        rounds=1,
        local_epochs=8,
        learning_rate=0.01,
        client_test=sfl.ClientTestConfig(share=0.25),
    )
    lines = []
    (row,) = run(config, tmp_path, say=lines.append).history
    with np.load(tmp_path / "client_tests.npz") as tests:
        assert np.isfinite(tests["personal_loss"]).sum() == 2  # of those who did not train
    assert row["personal_client_loss"] is None and row["global_client_loss"] > 0
    assert row["diverged"] == "personal_client_loss" and "diverged_clients" not in row
    assert any("round 1: not finite: personal_client_loss; the run goes" in x for x in lines)
