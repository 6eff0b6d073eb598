"""A whole run: what it writes, and that stopping and going on changes nothing."""

import dataclasses
import json
import signal
import weakref
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from semanticfl_jax.config import (
    AlgorithmConfig,
    ExperimentConfig,
    GuidanceConfig,
    OptimizerConfig,
    PartitionConfig,
    RuntimeConfig,
    from_dict,
    to_dict,
)
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.errors import SemanticFLError, Stopped
from semanticfl_jax.federated import dispatch
from semanticfl_jax.federated.dispatch import next_block
from semanticfl_jax.files import to_json_values
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation import experiment, pipeline
from semanticfl_jax.simulation.callbacks import Callback, WriteMetrics
from semanticfl_jax.simulation.checkpoint import Checkpoints
from semanticfl_jax.simulation.engine import Engine
from tests.federation import CLASSES, TinyNet, noise_images
from tests.results import metrics_without_times

CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=6,
    clients_per_round=3,
    rounds=5,
    local_epochs=1,
    batch_size=8,
    public_per_class=2,
    eval_every=2,
    checkpoint_every=2,
    # Rates that differ from round to round: one that is resumed must know where it is.
    optimizer=OptimizerConfig(warmup_rounds=4),
    runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
)


def runtime(**changes):
    return dataclasses.replace(CONFIG.runtime, **changes)


@pytest.fixture(scope="module")
def small_world():
    """A data set of noise."""
    return noise_images()


@pytest.fixture(scope="module")
def run(small_world):
    """`run` of a small network on that data set, in silence."""

    def run(config, directory, say=None, **options):
        network = TinyNet(CLASSES)
        return experiment.run(
            config, directory, dataset=small_world, model=network, say=say, **options
        )

    return run


@pytest.fixture(scope="module")
def simulation(small_world):
    """A `Simulation` of the same, ready to train."""

    def make(config, directory=None, **options):
        network = TinyNet(CLASSES)
        options = {"dataset": small_world, "model": network, "say": None} | options
        return experiment.Simulation(config, workdir=directory, **options)

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run):
    """A run without interruption: its directory, summary and printed lines."""
    directory, lines = tmp_path_factory.mktemp("run"), []
    summary = run(CONFIG, directory, lines.append).summary
    return directory, to_json_values(summary), lines


def parameters(directory):
    """The last checkpoint, as it is on disk."""
    with ocp.CheckpointManager((directory / "checkpoints").absolute()) as manager:
        return manager.latest_step(), manager.restore(None, args=ocp.args.StandardRestore())


def same_parameters(first, second):
    (round_a, a), (round_b, b) = parameters(first), parameters(second)
    assert round_a == round_b
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_writes_what_it_promises(finished, small_world):
    directory, summary, lines = finished
    assert json.loads((directory / "config.json").read_text())["rounds"] == 5
    assert json.loads((directory / "summary.json").read_text()) == summary
    for name in ("final_accuracy", "best_accuracy", "mean_last10_accuracy", "compile_seconds"):
        assert summary[name] > 0
    assert summary["rounds"] == 5
    assert {path.name for path in (directory / "plots").iterdir()} == {
        "accuracy_maps.png",
        "curves.png",
        "partition.png",
        "partition_clients.png",
    }
    rows = read_metrics(directory)
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5]
    assert ["test_accuracy" in row for row in rows] == [False, True, False, True, True]
    assert all(row["bytes_up"] == row["bytes_down"] > 0 for row in rows)
    assert rows[-1]["test_accuracy"] == summary["final_accuracy"]
    accuracies = rows[-1]["class_accuracy"]
    assert summary["class_accuracy"] == dict(zip(small_world.class_names, accuracies, strict=True))
    assert summary["class_accuracy"][summary["worst_class"]] == min(accuracies)
    partition = Partition.load(directory / "partition.npz")
    counts = partition.label_counts(small_world.train_labels, CLASSES)
    expected = counts @ accuracies / counts.sum(1)
    np.testing.assert_allclose(summary["client_accuracy"], expected)
    np.testing.assert_allclose(summary["worst_decile_accuracy"], min(expected))
    assert len(partition.indices) == len(small_world.train_labels) - 2 * CLASSES
    assert summary["partition"]["samples"] == len(partition.indices)
    assert summary["partition"]["sizes"]["max"] == partition.sizes.max()
    assert any("compiled in" in line for line in lines)


def test_a_finished_run_is_not_trained_again(finished, run):
    directory, summary, _ = finished
    lines = []
    result = run(CONFIG, directory, lines.append)
    assert result.summary == summary
    assert result.history == read_metrics(directory)
    assert "is finished: 5 rounds" in lines[0]


def test_a_run_on_a_saved_partition_is_the_same_bit_for_bit(finished, tmp_path, run):
    directory, summary, _ = finished
    saved = PartitionConfig(scheme="iid", file=str(directory / "partition.npz"))
    config = dataclasses.replace(CONFIG, partition=saved)
    other = run(config, tmp_path).summary
    same_parameters(tmp_path, directory)
    assert metrics_without_times(tmp_path) == metrics_without_times(directory)
    assert other["partition"] == summary["partition"]


class Killed(BaseException):
    """Stands for a process that ends without a chance to clean up."""


class Die(Callback):
    """Ends the process after a round, when its row is written and its checkpoint is not."""

    def __init__(self, after):
        self.after = after

    def on_round(self, simulation, step):
        if step.round == self.after:
            raise Killed


@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_run_goes_on_bit_for_bit(finished, tmp_path, monkeypatch, after, run):
    directory = tmp_path / "run"
    with pytest.raises(Killed):
        run(CONFIG, directory, callbacks=[Die(after)])
    lines = []
    run(CONFIG, directory, lines.append)
    # Checkpoints are written every second round, so round 3 is trained twice.
    assert any("resuming after round 2 of 5" in line for line in lines) == (after == 3)
    same_parameters(directory, finished[0])
    assert metrics_without_times(directory) == metrics_without_times(finished[0])


@pytest.mark.parametrize(
    ("algorithm", "memory"),
    [("scaffold", "device"), ("moon", "host"), ("fedcda", "host"), ("fedyogi", "device")],
)
def test_states_of_clients_and_server_go_on_bit_for_bit(
    tmp_path, monkeypatch, algorithm, memory, run
):
    config = from_dict(
        ExperimentConfig,
        {**to_dict(CONFIG), "algorithm": {"name": algorithm}, "checkpoint_every": 1},
    )
    run(config, tmp_path / "whole")

    other = dataclasses.replace(config, runtime=runtime(client_state_memory=memory))
    with pytest.raises(Killed):
        run(other, tmp_path / "killed", callbacks=[Die(3)])
    lines, initial = [], []
    prepare, restore = experiment.prepare, Checkpoints.restore_newest

    def prepared(*args, **options):
        engine = prepare(*args, **options)
        initial.extend(map(weakref.ref, jax.tree.leaves(engine.state)))
        return engine

    def restored(self, *arguments):
        assert initial and all(leaf() is None for leaf in initial)  # or all would be there twice
        return restore(self, *arguments)

    monkeypatch.setattr(experiment, "prepare", prepared)
    monkeypatch.setattr(Checkpoints, "restore_newest", restored)
    run(other, tmp_path / "killed", lines.append)
    assert any("resuming after round 2 of 5" in line for line in lines)
    # Clients' states in host memory are saved and restored as those on the devices are.
    same_parameters(tmp_path / "killed", tmp_path / "whole")
    assert metrics_without_times(tmp_path / "killed") == metrics_without_times(tmp_path / "whole")


@pytest.mark.parametrize("ahead", [False, True], ids=["one at a time", "ahead"])
def test_a_signal_stops_after_the_round_under_way_and_saves_it(
    finished, tmp_path, monkeypatch, ahead, run
):
    monkeypatch.setattr(pipeline, "runs_ahead", lambda config: ahead)
    config = dataclasses.replace(CONFIG, runtime=runtime(rounds_per_dispatch=1))

    def interrupt(self, simulation, step, write=WriteMetrics.on_round):
        write(self, simulation, step)
        if step.round == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(WriteMetrics, "on_round", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    # Dispatched while round 2 was recorded, or asked about only after round 3 was done.
    with pytest.raises(Stopped, match="after round 3"):
        run(config, tmp_path)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is handler
    assert [row["round"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    lines = []
    run(config, tmp_path, lines.append)
    assert any("resuming after round 3 of 5" in line for line in lines)
    same_parameters(tmp_path, finished[0])
    assert metrics_without_times(tmp_path) == metrics_without_times(finished[0])


def test_a_callback_sees_the_model_of_the_round_that_it_hears_of(simulation, monkeypatch):
    def total(simulation):
        return sum(float(jax.numpy.sum(x**2)) for x in jax.tree.leaves(simulation.state.params))

    def seen_by(method):
        seen = {}

        def hear(self, simulation, step):
            seen[step.round] = total(simulation)

        simulation(CONFIG, callbacks=[type("Seeing", (Callback,), {method: hear})()]).run()
        return seen

    def seen_by_a_pretended_one():
        seen = {}
        hear = {name: lambda *_: None for name in ("on_start", "on_evaluation", "on_end", "close")}
        hear["on_round"] = lambda one, step: seen.update({step.round: total(one)})
        simulation(CONFIG, callbacks=[SimpleNamespace(**hear, on_gpu=False)]).run()
        return seen

    one = simulation(CONFIG)
    expected, took_part = {}, {}
    for step in one:
        expected[step.round], took_part[step.round] = total(one), step.clients
        assert len(set(step.clients)) == CONFIG.clients_per_round
        assert set(step.clients) <= set(range(CONFIG.num_clients))
    assert len({tuple(sorted(clients)) for clients in took_part.values()}) > 1
    assert len(set(expected.values())) == CONFIG.rounds
    monkeypatch.setattr(pipeline, "runs_ahead", lambda config: True)
    assert seen_by("on_round") == seen_by_a_pretended_one() == expected
    assert seen_by("on_evaluation") == {number: expected[number] for number in (2, 4, 5)}


class Stopping(Callback):
    """Adds a figure to every round that is tested, and ends the run at one of them."""

    def __init__(self, at):
        self.at = at

    def on_evaluation(self, simulation, step):
        step.metrics["seen"] = np.float32(step.round / 2)
        if step.round == self.at:
            simulation.stop()


def test_a_callback_ends_a_run_early_and_its_figures_are_kept(simulation, finished, tmp_path, run):
    with simulation(CONFIG, tmp_path, callbacks=[Stopping(2)]) as one:
        result = one.run()
    rows = read_metrics(tmp_path)
    assert [row["round"] for row in rows] == [1, 2] and rows[1]["seen"] == 1.0
    assert result.summary["rounds"] == 2 and result.summary["stopped_early"]
    assert metrics_without_times(tmp_path)[0] == metrics_without_times(finished[0])[0]
    assert (tmp_path / "plots" / "curves.png").is_file()
    lines = []
    again = run(CONFIG, tmp_path, lines.append)  # is over, and trains no further
    assert again.summary["rounds"] == 2 and "its own code stopped it early" in lines[0]
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)


def test_a_loop_ends_a_run_early_and_none_goes_on_when_closed(simulation):
    one = simulation(CONFIG)
    for step in one:
        if step.round == 3:
            one.stop()
    assert one.round == 3 and one.summary()["stopped_early"] and one.summary()["finished"]
    between = simulation(CONFIG)
    between.run(1)
    between.stop()
    assert between.run().summary["rounds"] == 1 and between.summary()["stopped_early"]
    closed = simulation(CONFIG)
    with pytest.raises(RuntimeError, match=r"stop\(\) ends a run early"):
        for _ in closed:
            closed.close()


def test_a_loop_that_is_left_can_be_gone_on_with(simulation, finished, tmp_path, run):
    with simulation(CONFIG, tmp_path) as one:
        for step in one:
            if step.round == 3:  # no checkpoint is due
                break
    lines = []
    run(CONFIG, tmp_path, lines.append)
    assert any("resuming after round 3 of 5" in line for line in lines)
    same_parameters(tmp_path, finished[0])
    assert metrics_without_times(tmp_path) == metrics_without_times(finished[0])


@pytest.mark.parametrize(("length", "devices"), [("auto", 1), (3, 2)])
def test_rounds_in_blocks_are_those_dispatched_one_by_one(
    tmp_path, monkeypatch, length, devices, run
):
    config = dataclasses.replace(
        CONFIG,
        algorithm=AlgorithmConfig(name="scaffold"),
        rounds=8,
        eval_every=5,
        checkpoint_every=7,
    )
    counts = []

    def spy(engine, count, advance=Engine.advance):
        counts.append(count)
        return advance(engine, count)

    monkeypatch.setattr(Engine, "advance", spy)
    monkeypatch.setattr(dispatch, "_BLOCK_SECONDS", 1e6)  # even this machine's slowest minute
    for name, rounds in (("single", 1), ("blocks", length)):
        counts.clear()
        here = runtime(num_devices=devices, rounds_per_dispatch=rounds)
        chosen = dataclasses.replace(config, runtime=here)
        run(chosen, tmp_path / name)
        assert sum(counts) == 8
        if rounds == 3:
            assert counts == [3, 2, 2, 1]
        if rounds == "auto":  # the first is timed
            assert counts == [1, 4, 2, 1]
    same_parameters(tmp_path / "blocks", tmp_path / "single")
    assert metrics_without_times(tmp_path / "blocks") == metrics_without_times(tmp_path / "single")


@pytest.mark.parametrize(
    ("done", "seconds", "count"),
    [(0, None, 1), (0, 0.001, 20), (15, 0.001, 5), (20, 0.001, 10), (0, 0.3, 3), (0, 5.0, 1)],
)
def test_a_block_ends_where_something_is_due_and_within_a_second(done, seconds, count):
    config = dataclasses.replace(CONFIG, rounds=33, eval_every=20, checkpoint_every=30)
    assert next_block(config, done, seconds) == count
    fixed = dataclasses.replace(config, runtime=runtime(rounds_per_dispatch=7))
    assert next_block(fixed, done, seconds) == min(7, 20 - done if done < 20 else 10)
    host = dataclasses.replace(config, runtime=runtime(client_state_memory="host"))
    assert next_block(host, done, seconds) == 1


def test_another_configuration_is_refused_and_named(finished, run):
    directory, _, _ = finished
    before = (directory / "config.json").read_bytes()
    model = dataclasses.replace(CONFIG.model, width=8)
    other = dataclasses.replace(CONFIG, learning_rate=0.1, model=model)
    with pytest.raises(SemanticFLError) as error:
        run(other, directory)
    assert "learning_rate was 0.01, is 0.1" in str(error.value)
    assert "model.width was 64, is 8" in str(error.value)
    assert "rounds" not in str(error.value)
    assert (directory / "config.json").read_bytes() == before


def test_impossible_inputs_are_refused_before_anything_compiles(tmp_path, run):
    with pytest.raises(SemanticFLError, match="num_devices must be at most 8"):
        run(dataclasses.replace(CONFIG, runtime=runtime(num_devices=9)), tmp_path / "a")
    with pytest.raises(SemanticFLError, match="num_clients"):
        config = dataclasses.replace(CONFIG, num_clients=1000)
        run(config, tmp_path / "b")
    # What cannot run claims no directory: the corrected command may use it.
    assert not (tmp_path / "b" / "config.json").exists()


def test_every_kind_of_heterogeneity_composes_and_goes_on_bit_for_bit(
    tmp_path, monkeypatch, small_world, run
):
    config = from_dict(
        ExperimentConfig,
        {
            **to_dict(CONFIG),
            "partition": {"scheme": "shards", "imbalance_factor": 3},
            "feature_skew": {"corruptions": "noise,contrast", "share": 0.5},
            "modality": {"without_text": 1 / 6, "without_both": 1 / 6},
            "availability": {"sampling": "round_robin", "dropout": 0.3, "straggler_share": 0.5},
            "algorithm": {"name": "scaffold"},
            "guidance": {
                "enabled": True,
                "checkpoint": str(Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"),
                "maps": "vae,down_0",
            },
            "checkpoint_every": 1,
        },
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(config, whole)
    with np.load(whole / "clients.npz") as clients:
        assert sorted(clients) == ["corruption", "holds_text", "holds_visual", "severity"]
        corrupted = clients["severity"] > 0
        assert corrupted.sum() == 3
        assert set(clients["corruption"][corrupted]) <= {"noise", "contrast"}
        assert (~clients["holds_text"]).sum() == 2
        assert (~clients["holds_visual"]).sum() == 1
    assert (whole / "plots" / "corruptions.png").is_file()

    with pytest.raises(Killed):
        run(config, killed, callbacks=[Die(3)])
    run(config, killed)
    same_parameters(killed, whole)
    assert metrics_without_times(killed) == metrics_without_times(whole)


def test_a_run_on_oracle_anchors_says_everywhere_that_it_is_not_private(tmp_path, small_world, run):
    guidance = GuidanceConfig(
        enabled=True,
        checkpoint=str(Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"),
        anchor_source="oracle",
        maps=("vae", "down_0"),
    )
    config = dataclasses.replace(CONFIG, rounds=1, guidance=guidance)
    lines = []
    summary = run(config, tmp_path, lines.append).summary
    assert any(line.startswith("not private") for line in lines)
    assert summary["private"] is False
    assert summary["note"].startswith("not private")
    (row,) = read_metrics(tmp_path)
    assert row["private"] is False
    # Text anchors to every new client, and a row of 6 float16 for each of its images.
    sizes = Partition.load(tmp_path / "partition.npz").sizes
    contact = row["bytes_down"] - row["bytes_up"] - 3 * 4 * CLASSES * 16
    assert contact % 12 == 0
    assert min(sizes) * 3 <= contact / 12 <= max(sizes) * 3
    assert (tmp_path / "plots" / "anchors.png").is_file()
    assert Anchors.load(tmp_path / "anchors.npz").samples.shape == (140, 6)


class Misspelt(Callback):
    def on_evaluate(self, simulation, step):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": (np.zeros(3), np.zeros(3))}, "dataset must be an ImageDataset "),
        ({"model": TinyNet}, "model must be an instance of a Flax .Linen. module, got <class"),
        ({"model": "cnn"}, "model must be an instance of a Flax"),
        ({"algorithm": "fedprox"}, "algorithm must be an Algorithm .a name belongs into config"),
        ({"callbacks": [print]}, "callbacks must be of the class Callback, got <built-in function"),
        ({"callbacks": [Callback]}, r"callbacks must be made, as Callback\(\), got the class"),
        ({"callbacks": Callback()}, "callbacks must be a list of callbacks, got <semanticfl_jax"),
        ({"callbacks": [Misspelt()]}, "Misspelt.on_evaluate would never be called: callbacks have"),
    ],
)
def test_arguments_of_another_kind_are_refused_by_name(options, message):
    with pytest.raises(SemanticFLError, match=message):
        experiment.Simulation(CONFIG, **options)
    with pytest.raises(SemanticFLError, match="config must be an ExperimentConfig, got 'digits'"):
        experiment.Simulation("digits")
