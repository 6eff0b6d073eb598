"""The comparison with peers: same task, same users, and the ratio of what was measured."""

import argparse
import json

import numpy as np
import pytest

from comparisons import compare
from comparisons.peers import cifar10, export_cifar10
from launch import benchmark
from semanticfl_jax.benchmarks import rounds
from semanticfl_jax.data import sources
from semanticfl_jax.data.federation import deal
from semanticfl_jax.data.sources import ImageDataset


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
def configs(monkeypatch):
    """What launch.benchmark runs as each of the tasks."""
    taken = []
    monkeypatch.setattr(rounds, "measure", lambda config, *rest: taken.append(config) or {})
    monkeypatch.setattr(sources, "from_config", lambda config: _dataset())
    benchmark.absl_flags.FLAGS.mark_as_parsed()
    for name in cifar10.TASKS:
        task = benchmark.TASKS[name]
        task.run(task)
    return dict(zip(cifar10.TASKS, taken, strict=True))


@pytest.mark.parametrize("name", cifar10.TASKS)
def test_tasks_are_what_the_benchmark_runs(configs, name):
    task, config = cifar10.TASKS[name], configs[name]
    assert (task.users, task.cohort) == (config.num_clients, config.clients_per_round)
    for field in ("batch_size", "learning_rate", "momentum", "weight_decay"):
        assert getattr(task, field) == getattr(config, field), field
    assert (config.local_epochs, config.clip_norm, config.public_per_class) == (1, 0, 0)
    assert config.augmentation == (("crop_flip",) if task.augment else ())
    assert config.algorithm.name == "fedavg" and config.partition.scheme == "iid"


def test_task_of_pfl_research_is_the_published_one(configs):
    config = configs["pfl_cifar10"]
    assert (config.model.name, config.rounds, config.eval_every) == ("cnn", 1500, 10)
    assert cifar10.TASKS["pfl_cifar10"].images_per_round == 50 * 50
    assert cifar10.TASKS["pfl_cifar10"].eval_every == config.eval_every


def test_peers_read_the_users_that_we_train(monkeypatch, tmp_path, configs):
    dataset = _dataset()
    monkeypatch.setattr(export_cifar10, "load_dataset", lambda name, data_dir: dataset)
    export_cifar10.export(None, tmp_path / "cifar10.npz")
    data = cifar10.load(tmp_path / "cifar10.npz", "family_cifar10")
    _, partition = deal(dataset, configs["family_cifar10"])
    np.testing.assert_array_equal(data.users.ravel(), partition.indices)
    assert data.users.shape == (50, 1000)
    np.testing.assert_array_equal(data.train_images[7, :, 1, 0], dataset.train_images[7, 1, 0])
    # Task pfl_cifar10 normalises by the training split's own statistics.
    data = cifar10.load(tmp_path / "cifar10.npz", "pfl_cifar10")
    images = data.normalize(data.train_images)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(images.std((0, 2, 3)), 1, atol=1e-4)
    _, partition = deal(dataset, configs["pfl_cifar10"])
    np.testing.assert_array_equal(data.users.ravel(), partition.indices)
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
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert figures["speed_ratio_of_pairs"] == [2.0, 1.5, 5.0]
    assert figures["speed_ratio"] == {"median": 2.0, "min": 1.5, "max": 5.0}
    assert capsys.readouterr().out.count("warning: other processes were busy") == 1
    json.dumps(figures)


def test_a_failed_run_shows_its_output(monkeypatch, tmp_path):
    monkeypatch.setattr(compare, "busy_share", lambda: 0.0)
    with pytest.raises(SystemExit, match=r"(?s)no such thing.*failed with status 3"):
        compare.run(["sh", "-c", "echo no such thing; exit 3"], tmp_path)


def test_refuses_a_task_that_the_peer_does_not_run(monkeypatch, capsys, tmp_path):
    flags = ["compare", "--task=family_cifar10", "--peer=flower", f"--env={tmp_path}"]
    monkeypatch.setattr("sys.argv", flags)
    with pytest.raises(SystemExit):
        compare.parse_arguments()
    assert "--peer=flower runs pfl_cifar10, not family_cifar10" in capsys.readouterr().err
