"""The benchmarks of rounds: what is counted, and what is made of it; tiny, on noise."""

import dataclasses
import json
import statistics
import types

import jax
import numpy as np
import pytest

from semanticfl_jax.benchmarks import guidance, many_clients, matmul_rate, rounds, student
from semanticfl_jax.benchmarks.noise import noise_dataset
from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig, RuntimeConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.files import to_json_values
from tests import tiny_plugin  # noqa: F401 - registers tiny_net

TINY = ExperimentConfig(
    dataset="cifar10",
    augmentation=(),
    public_per_class=0,
    model=ModelConfig(name="cnn"),
    partition=PartitionConfig(scheme="iid"),
    num_clients=6,
    clients_per_round=2,
    local_epochs=1,
    batch_size=20,
    momentum=0.0,
    runtime=RuntimeConfig(num_devices=1),
)


class Counting:
    """Stands for an engine: its state is the number of rounds, a round lasts that many seconds.

    All engines share a clock that moves only by what they do.
    """

    clock = 0.0

    def __init__(self, name="", log=None):
        self.name, self.log = name, log if log is not None else []
        self.state = 0
        self.description, self.device, self.compile_seconds = ("a line",), "1 x cpu", 7.0

    def advance(self, count):
        assert count == 1
        self.log.append(self.name)
        self.state += 1
        Counting.clock += self.state
        return types.SimpleNamespace(images=10.0, padding_share=0.25)

    def evaluate(self, state):
        self.log.append(f"tested {state}")
        Counting.clock += 0.5 if state else 9.0  # the first takes longer
        return {"test_accuracy": state / 100}


@pytest.fixture
def clock(monkeypatch):
    stopwatch = types.SimpleNamespace(perf_counter=lambda: Counting.clock)
    monkeypatch.setattr(rounds, "time", stopwatch)


def test_the_first_round_is_not_counted_and_evaluation_is_apart(clock):
    engine = Counting("round")
    config = dataclasses.replace(TINY, eval_every=2)
    figures = rounds.time_rounds(engine, config, 4, say=lambda line: None)
    assert engine.log == [
        "tested 0",
        *["round"] * 2,
        "tested 2",
        *["round"] * 2,
        "tested 4",
        "round",
        "tested 5",
    ]
    assert figures["seconds_per_round"] == {"median": 3.5, "min": 2, "max": 5}
    expected = {"median": statistics.median([10 / 3, 10 / 4]), "min": 2, "max": 5}
    assert figures["images_per_second"] == pytest.approx(expected)
    assert figures["evaluation_seconds"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert (figures["rounds"], figures["rounds_trained"]) == (4, 5)
    assert figures["accuracy"] == pytest.approx(0.05)
    assert (figures["padding_share"], figures["compile_seconds"]) == (0.25, 7.0)


def test_engines_take_turns_in_both_directions(clock):
    log = []
    seconds = rounds.in_turn([Counting("a", log), Counting("b", log)], 3)
    assert "".join(log) == "ba" + "ab" + "ba" + "ab"
    assert seconds == [[2, 3, 4], [2, 3, 4]]


def test_a_task_is_measured(monkeypatch):
    monkeypatch.setattr(rounds, "matmul_rate", lambda mesh, dtype: 1e9 * mesh.size)
    lines = []
    # As launch/configs/pfl_cifar10.py, where rounds could be dispatched together.
    config = dataclasses.replace(TINY, rounds=500, eval_every=10, checkpoint_every=50)
    figures = rounds.measure(config, 1, noise_dataset(120, side=8), lines.append)
    json.dumps(to_json_values(figures))
    assert figures["images_per_round"] == 40 and figures["padding_share"] == 0
    assert figures["peak_memory_bytes"] > 1e8 and figures["peak_memory_of"] == "process"
    assert 0 <= figures["accuracy"] <= 1 and figures["compile_seconds"] > 0
    assert figures["versions"]["jax"] == jax.__version__ and figures["device"] == "1 x cpu"
    achieved = figures["flops_per_image"] * figures["images_per_second"]["median"]
    assert figures["share_of_peak"] == pytest.approx(achieved / 1e9)
    ratio = figures["floor_seconds_per_round"] / figures["seconds_per_round"]["median"]
    assert ratio == pytest.approx(figures["share_of_peak"])
    assert any("MFLOP an image" in line for line in lines)


def test_matmul_rate_counts_all_devices(monkeypatch):
    ticks = iter(range(100))
    stopwatch = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(matmul_rate, "time", stopwatch)
    for devices in (1, 2):
        rate = matmul_rate.matmul_rate(make_mesh(devices), size=16, repeats=2)
        assert rate == devices * 2 * 16**3  # a product a second
        chained = matmul_rate.matmul_rate(make_mesh(devices), size=16, repeats=2, chain=5)
        assert chained == 5 * rate  # five products a second


def test_guidance_is_timed_beside_its_absence(monkeypatch):
    monkeypatch.setattr(rounds, "in_turn", _guided_takes_longer)
    tiny = dataclasses.replace(TINY, model=ModelConfig("tiny_net"))
    figures = guidance.measure(tiny, 3, noise_dataset(120, side=8), lambda line: None)
    json.dumps(to_json_values(figures))
    assert figures["overhead_percent"] == pytest.approx({"median": 5, "min": 0, "max": 10})
    assert figures["seconds_per_round"]["guided"]["median"] == pytest.approx(2.1)
    assert "guidance" in figures["description"][0]
    assert figures["anchors"] == {"visual_width": 6, "text_width": 768}


def _guided_takes_longer(engines, turns):
    plain, guided = engines
    assert turns == 3
    for engine in engines:
        metrics, _ = rounds.timed_round(engine)
        assert np.isfinite(metrics.train_loss)
    assert set(guided.state.params) - set(plain.state.params) == {"guidance"}
    return [[1.0, 2.0, 4.0], [1.1, 2.1, 4.0]]


def test_a_student_is_timed_beside_its_absence(monkeypatch):
    def in_turn(engines, turns):
        for engine in engines:
            metrics, _ = rounds.timed_round(engine)
            assert np.isfinite(metrics.train_loss)
        heads = [set(engine.state.params) for engine in engines]
        assert heads == [{"model"}, {"model", "student"}, {"model", "student"}]
        return [[1.0, 2.0, 4.0], [1.1, 2.1, 4.0], [2.0, 4.0, 8.0]]

    monkeypatch.setattr(rounds, "in_turn", in_turn)
    tiny = dataclasses.replace(TINY, model=ModelConfig("tiny_net"))
    figures = student.measure(tiny, 3, noise_dataset(120, side=8), lambda line: None)
    json.dumps(to_json_values(figures))
    assert figures["overhead_percent"]["once"] == pytest.approx({"median": 5, "min": 0, "max": 10})
    assert figures["overhead_percent"]["each_step"]["median"] == pytest.approx(100)
    assert "student" in figures["description"][0]


def test_clients_share_samples_only_where_they_must():
    deal = many_clients.overlapping_partition
    partition = deal(num_samples=50, num_clients=12, size=8, seed=0)  # 6 clients a deck
    hands = partition.indices.reshape(12, 8)
    assert (partition.sizes == 8).all() and partition.overlapping
    assert all(len(set(hand)) == 8 for hand in hands)
    for deck in (hands[:6], hands[6:]):
        assert len(set(deck.ravel())) == 48
    assert not np.array_equal(hands[:6], hands[6:])
    assert not deal(num_samples=48, num_clients=6, size=8, seed=0).overlapping
    with pytest.raises(ValueError, match=r"size must be from 1 to the number of samples 5, got 8"):
        deal(num_samples=5, num_clients=1, size=8, seed=0)


def test_many_clients_are_measured():
    tiny = ModelConfig("tiny_net")
    config = dataclasses.replace(TINY, model=tiny, num_clients=800, clients_per_round=4)
    # As launch/configs/many_clients.py, where rounds could be dispatched together.
    config = dataclasses.replace(config, rounds=500, eval_every=10, checkpoint_every=50)
    lines = []
    dataset = noise_dataset(100, side=8)
    figures = many_clients.measure(config, 1, dataset, lines.append)
    json.dumps(to_json_values(figures))
    settings = figures["settings"]
    pairs = [(row["num_clients"], row["cohort"]) for row in settings]
    assert pairs == [(8, 4), (800, 1), (800, 2), (800, 4)]
    for row in settings:
        # Images; and of each client 20 indices, offset, size and 10 label counts.
        assert row["images_bytes"] == 100 * (8 * 8 * 3 + 4)
        assert row["index_table_bytes"] == 4 * row["num_clients"] * (20 + 2 + 10)
        per_client = 1e3 * row["seconds_per_round"]["median"] / row["cohort"]
        assert row["milliseconds_per_client"] == pytest.approx(per_client)
    few, *_, many = settings
    # A hundred times the clients: the table grows, what the round takes besides does not.
    grown = many["round_arguments_bytes"] - few["round_arguments_bytes"]
    assert 0 < grown <= many["index_table_bytes"] - few["index_table_bytes"] + 792
    assert many["round_temporary_bytes"] < few["round_temporary_bytes"] + 64 * 792
    assert figures["seconds_per_round"] == many["seconds_per_round"]
    assert figures["images_per_round"] == 80
    assert any(line.startswith("| 800 | 2 |") for line in lines)
