"""The comparison with peers: same task, same users, and the ratio of what was measured."""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.peers import cifar10, export_cifar10
from launch import benchmark
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.simulation import benchmark as rounds
from semanticfl_jax.simulation.experiment import deal


def _dataset():
    """As many images as CIFAR-10 has, of 2 x 2 pixels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50_000, 2, 2, 3), np.uint8)
    labels = rng.integers(0, 10, 50_000).astype(np.int32)
    return ImageDataset(
        name="cifar10",
        train_images=images,
        train_labels=labels,
        test_images=images[:30],
        test_labels=labels[:30],
        class_names=tuple("abcdefghij"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )


@pytest.fixture
def family_config(monkeypatch):
    """What launch.benchmark runs as family_cifar10."""
    taken = []
    monkeypatch.setattr(rounds, "measure", lambda config, number: taken.append(config) or {})
    benchmark.absl_flags.FLAGS.mark_as_parsed()
    benchmark.time_family_cifar10()
    return taken[0]


def test_family_task_is_what_the_benchmark_runs(family_config):
    task, config = cifar10.TASKS["family_cifar10"], family_config
    assert (task.users, task.cohort) == (config.num_clients, config.clients_per_round)
    for field in ("batch_size", "learning_rate", "momentum", "weight_decay"):
        assert getattr(task, field) == getattr(config, field), field
    assert task.images_per_round == 5 * 1000


def test_peers_read_the_users_that_we_train(monkeypatch, tmp_path, family_config):
    dataset = _dataset()
    monkeypatch.setattr(export_cifar10, "load_dataset", lambda name, data_dir: dataset)
    export_cifar10.export(None, tmp_path / "cifar10.npz")
    data = cifar10.load(tmp_path / "cifar10.npz", "family_cifar10")
    _, partition = deal(dataset, dataclasses.replace(family_config, public_per_class=0))
    np.testing.assert_array_equal(data.users.ravel(), partition.indices)
    assert data.users.shape == (50, 1000)
    np.testing.assert_array_equal(data.train_images[7, :, 1, 0], dataset.train_images[7, 1, 0])
    # Task pfl_cifar10 normalises by the training split's own statistics.
    data = cifar10.load(tmp_path / "cifar10.npz", "pfl_cifar10")
    images = data.normalize(data.train_images)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(images.std((0, 2, 3)), 1, atol=1e-4)
    assert data.users.shape == (1000, 50)


def test_ratio_is_taken_within_pairs(monkeypatch, tmp_path, capsys):
    medians = {"ours": iter([1.0, 2.0, 4.0]), "peer": iter([2.0, 3.0, 20.0])}
    order = []

    def run(command, directory):
        order.append(command[0])
        median = next(medians[command[0]])
        return {
            "seconds_per_round": {"median": median, "min": median, "max": median},
            "busy_before": 0.5 if len(order) == 3 else 0.0,
        }

    monkeypatch.setattr(compare, "export", lambda data_dir, output: None)
    monkeypatch.setattr(
        compare, "commands", lambda args, data: {"ours": ["ours"], "peer": ["peer"]}
    )
    monkeypatch.setattr(compare, "run", run)
    args = argparse.Namespace(
        task="pfl_cifar10", peer="flower", data_dir=None, alternations=3, rounds=1
    )
    figures = compare.compare(args, tmp_path)
    assert order == ["ours", "peer"] * 3
    assert figures["speed_ratio_of_pairs"] == [2.0, 1.5, 5.0]
    assert figures["speed_ratio"] == {"median": 2.0, "min": 1.5, "max": 5.0}
    assert capsys.readouterr().out.count("warning: other processes were busy") == 1
    json.dumps(figures)


def test_a_failed_run_shows_its_output(monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "busy_share", lambda: 0.0)
    with pytest.raises(SystemExit, match=r"(?s)no such thing.*failed with status 3"):
        compare.run(["sh", "-c", "echo no such thing; exit 3"], tmp_path)


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="Linux tells it in /proc/stat")
def test_busy_share_is_a_share():
    assert 0 <= compare.busy_share(seconds=0.05) <= 1


def test_refuses_a_task_that_the_peer_does_not_run(monkeypatch, capsys, tmp_path):
    flags = ["compare", "--task=family_cifar10", "--peer=flower", f"--env={tmp_path}"]
    monkeypatch.setattr("sys.argv", flags)
    with pytest.raises(SystemExit):
        compare.parse_arguments()
    assert "--peer=flower runs pfl_cifar10, not family_cifar10" in capsys.readouterr().err
