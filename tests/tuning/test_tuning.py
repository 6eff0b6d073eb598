"""The choice of lowering and chunk: what is looked at, what is taken, and how long it lasts."""

import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest

from semanticfl_jax.benchmarks import tuning
from semanticfl_jax.benchmarks.noise import noise_dataset
from semanticfl_jax.config import (
    AlgorithmConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    RuntimeConfig,
)
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.files import to_json_values
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation.experiment import run
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.tuning import cache, timing
from semanticfl_jax.tuning import choose as choosing
from semanticfl_jax.tuning.search import best, chunks_up_to, expected, search
from semanticfl_jax.tuning.timing import Figure, Workload, time_chunk
from tests import tiny_plugin  # noqa: F401 - registers tiny_net
from tests.federation import CLASSES, FEDAVG, MEAN, STD, TinyNet, algorithm_of

CONFIG = ExperimentConfig(
    dataset="digits",
    num_clients=40,
    clients_per_round=40,
    rounds=2,
    local_epochs=1,
    batch_size=8,
    augmentation=(),
    public_per_class=0,
    model=ModelConfig("tiny_net"),
    runtime=RuntimeConfig(eval_batch_size=16, num_devices=1, tuning="always"),
)
# Milliseconds of a client's step: what a GPU might show.
GPU = {
    "native": lambda chunk: 3 if chunk == 1 else 20,
    "canonical": lambda chunk: 4,
    "patches": lambda chunk: max(6 / chunk, 0.4),
    "shifted": lambda chunk: max(9 / chunk, 0.6),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@functools.cache
def received():
    return init_model(TinyNet(CLASSES), FEDAVG, (8, 8, 3), jax.random.key(0))


def workload(sizes=(20,) * 40, runtime=None, **changes):
    runtime = dataclasses.replace(CONFIG.runtime, **(runtime or {}))
    config = dataclasses.replace(CONFIG, runtime=runtime, **changes)
    algorithm, sizes = algorithm_of(config), np.array(sizes)
    return Workload(config, algorithm, received(), (8, 8, 3), CLASSES, sizes, MEAN, STD)


@pytest.fixture
def timed(monkeypatch):
    """The pairs that were measured; their figures are those of `GPU`."""
    pairs = []

    def time_chunk(work, conv, chunk, mesh):
        pairs.append((conv, chunk))
        return Figure(conv, chunk, "measured", 1e-3 * GPU[conv](chunk), 1.0, 1000 * chunk)

    monkeypatch.setattr(cache, "time_chunk", time_chunk)
    return pairs


def choose(kept=None, **changes):
    return choosing.choose(workload(**changes), make_mesh(1), kept, say=lambda line: None)


def test_chunks_are_powers_of_two_and_the_largest():
    assert chunks_up_to(1) == [1]
    assert chunks_up_to(5) == [1, 2, 4, 5]
    assert chunks_up_to(16) == [1, 2, 4, 8, 16]


def looked(milliseconds, chunks, lowerings=("patches", "native", "canonical", "shifted")):
    def look(conv, chunk):
        found = milliseconds[conv](chunk)
        return Figure(conv, chunk, "measured", found) if found else Figure(conv, chunk, "failed")

    return search(look, lowerings, chunks)


@pytest.mark.parametrize(
    ("changes", "conv", "chunk"),
    [
        # 6 / 16 is below 0.4 already, and 32 bring nothing more.
        ({}, "patches", 16),
        ({"canonical": lambda chunk: 0.1}, "canonical", 1),
        ({"native": lambda chunk: 0.1 if chunk == 1 else 20}, "native", 1),
        ({"patches": lambda chunk: {8: 0.5, 4: 0.51, 2: 1.1}.get(chunk, 5)}, "patches", 4),
        # What cannot be had with 8 and more is looked for below.
        ({name: lambda chunk: 5 / chunk if chunk < 8 else None for name in GPU}, "patches", 4),
    ],
)
def test_the_fastest_is_found_and_few_are_looked_at(changes, conv, chunk):
    figures = looked(GPU | changes, chunks_up_to(200))
    found = best(figures)
    assert (found.conv, found.clients_per_chunk) == (conv, chunk)
    assert len(figures) == len({(f.conv, f.clients_per_chunk) for f in figures}) <= 14


def test_nothing_is_best_where_nothing_runs():
    assert best(looked({name: lambda chunk: None for name in GPU}, [1, 2, 4])) is None


def test_a_measurement_decides_once_and_is_kept(timed, tmp_path):
    first = choose()
    assert (first.conv, first.clients_per_chunk) == ("patches", 16)
    assert "measured now in" in first.how
    assert timed and ("native", 8) not in timed  # a call of it takes minutes on CPU
    (file,) = (tmp_path / "cache").rglob("*.json")
    assert str(file) in first.how
    assert json.loads(file.read_text())["of"]["images_a_step"] == 8
    timed.clear()
    again = choose(seed=5, learning_rate=0.5)
    assert again[:2] == first[:2] and "measured before" in again.how and not timed
    # Fewer clients a round look at the same figures; other work does not.
    assert choose(clients_per_round=9).clients_per_chunk == 9
    assert timed == [("patches", 9)]
    assert choose(batch_size=4)[:2] == first[:2]
    assert ("patches", 8) in timed
    timed.clear()
    # Adam keeps twice as much of every client as momentum does.
    assert choose(optimizer=OptimizerConfig("adam"))[:2] == first[:2] and timed
    timed.clear()
    file.write_text('{"figures": [{"conv"')
    assert choose()[:2] == first[:2] and timed
    assert json.loads(file.read_text())["figures"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clients_per_chunk": 4}, ("patches", 4)),
        ({"conv": "shifted"}, ("shifted", 16)),
        ({"conv": "native", "clients_per_chunk": 64}, ("native", 40)),
        ({"tuning": "never"}, ("canonical", 1)),
        ({"tuning": "auto"}, ("canonical", 1)),  # on a CPU
        ({"tuning": "never", "clients_per_chunk": 3}, ("canonical", 3)),
    ],
)
def test_what_is_given_is_not_searched(timed, changes, expected):
    found = choose(runtime=changes)
    assert found[:2] == expected
    given = changes.get("clients_per_chunk"), changes.get("conv", "auto")
    for conv, chunk in timed:
        assert given[0] in (None, chunk) and given[1] in ("auto", conv)
    if "tuning" in changes or (None not in given and "auto" not in given):
        assert not timed


def test_accelerators_measure_and_cpus_do_not(timed):
    class Device:
        platform, device_kind = "gpu", "NVIDIA H100"

    class Mesh:
        devices = np.array([Device()])
        local_devices = jax.local_devices()[:1]

    choice = choosing.choose(workload(runtime={"tuning": "auto"}), Mesh(), say=lambda line: None)
    assert choice[:2] == ("patches", 16)
    assert ("native", 1) in timed and timed[0] == ("patches", 8)  # the likeliest first
    timed.clear()
    assert choosing.choose(workload(runtime={"tuning": "never"}), Mesh())[:2] == ("patches", 16)
    alone = workload(runtime={"tuning": "never"}, clients_per_round=1)
    assert choosing.choose(alone, Mesh())[:2] == ("native", 1)
    assert not timed


def test_a_run_keeps_its_choice(timed, tmp_path):
    kept = tmp_path / "tuning.json"
    first = choose(kept)
    values = json.loads(kept.read_text())
    assert values == {"device": "cpu", **first._asdict()}
    kept.write_text(json.dumps(values | {"conv": "shifted", "clients_per_chunk": 2}))
    timed.clear()
    assert choose(kept)[:2] == ("shifted", 2)
    # What is given meanwhile counts: fewer clients side by side, after a run was out of memory.
    assert choose(kept, runtime={"clients_per_chunk": 1})[:2] == ("shifted", 1)
    assert choose(kept, runtime={"conv": "canonical"})[:2] == ("canonical", 2)
    # Another kind of device is another choice.
    kept.write_text(json.dumps(values | {"device": "TPU v5", "conv": "native"}))
    assert choose(kept)[:2] == first[:2]
    assert json.loads(kept.read_text())["device"] == "cpu"
    assert not timed


def test_other_processes_do_as_the_main_one(timed, monkeypatch):
    monkeypatch.setattr(choosing.processes, "is_main", lambda: False)
    told = iter([choosing.LOWERINGS.index("shifted"), 8])
    monkeypatch.setattr(choosing.processes, "of_main", lambda number: next(told))
    assert choose() == ("shifted", 8, "as process 0 chose") and not timed


def test_what_failed_is_tried_again_by_the_next_run(timed, monkeypatch, tmp_path):
    measure = cache.time_chunk

    def fail(work, conv, chunk, mesh):
        return Figure(conv, chunk, "failed", note=measure(work, conv, chunk, mesh).outcome)

    monkeypatch.setattr(cache, "time_chunk", fail)
    assert "nothing could be measured" in choose().how and timed
    (file,) = (tmp_path / "cache").rglob("*.json")
    assert json.loads(file.read_text())["figures"] == []
    # Nor is what an earlier edition kept taken for good.
    values = json.loads(file.read_text())
    old = [dataclasses.asdict(Figure("patches", 16, "failed"))]
    file.write_text(json.dumps(values | {"figures": old}))
    monkeypatch.setattr(cache, "time_chunk", measure)
    assert choose()[:2] == ("patches", 16)


def test_figures_are_kept_as_they_are_found(timed, monkeypatch, tmp_path):
    measure = cache.time_chunk

    def killed(work, conv, chunk, mesh):
        if len(timed) == 2:
            raise KeyboardInterrupt
        return measure(work, conv, chunk, mesh)

    monkeypatch.setattr(cache, "time_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        choose()
    (file,) = (tmp_path / "cache").rglob("*.json")
    found = json.loads(file.read_text())["figures"]
    assert [(each["conv"], each["clients_per_chunk"]) for each in found] == timed


def test_time_runs_out(timed, monkeypatch):
    monkeypatch.setattr(cache, "_SECONDS", -1.0)
    found = choose()
    assert found[:2] == ("canonical", 1) and "nothing could be measured" in found.how
    assert not timed


def test_clients_that_would_wait_for_one_another_are_fewer_side_by_side(timed):
    # One of 40 has six times as many images as the others together, and trains alone most of the
    # time: with patches for 6 ms a step, otherwise for 4.
    skewed = workload(sizes=(20,) * 39 + (20 * 39 * 6,))
    choice = choosing.choose(skewed, make_mesh(1), say=lambda line: None)
    assert choice[:2] == ("canonical", 1)
    assert choose()[:2] == ("patches", 16)


def test_what_a_narrowing_chunk_takes_is_added_up():
    figures = [
        Figure("patches", chunk, "measured", seconds)
        for chunk, seconds in ((1, 6.0), (4, 2.0), (8, 1.5))
    ]
    load = {8: 0.05, 4: 0.1, 2: 0.0, 1: 0.2}
    total = expected(figures[2], figures, lambda chunk: load)
    assert total == pytest.approx(0.05 * 8 * 1.5 + 0.1 * 4 * 2.0 + 0.2 * 6.0)
    # Two take a third of the way from one to four.
    assert expected(figures[2], figures, lambda chunk: {2: 1.0}) == pytest.approx(6 + (8 - 6) / 3)
    # As far as one knows from eight alone.
    assert expected(figures[2], figures[2:], lambda chunk: {2: 1.0}) == pytest.approx(2 * 1.5)
    assert expected(Figure("patches", 8, "failed"), figures, lambda chunk: load) == math.inf


def test_a_steps_time_is_shared_by_the_clients_side_by_side(monkeypatch):
    monkeypatch.setattr(timing, "seconds_per_step", lambda call, most, repeats, platform: 0.6)
    figure = time_chunk(workload(), "patches", 3, make_mesh(1))
    assert figure.outcome == "measured" and figure.seconds == pytest.approx(0.2)


def test_another_precision_is_measured_anew():
    one, other = (
        cache.measured_for(workload(precision=p), make_mesh(1)) for p in ("float32", "bfloat16")
    )
    assert one != other


def test_what_there_was_no_time_for_is_measured_by_the_next_run(timed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_SECONDS", -1.0)
        choose()
    assert choose()[:2] == ("patches", 16) and timed


def test_an_accelerator_that_does_not_tell_its_memory_is_not_taken_for_a_cpu(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return None

    class Mesh:
        local_devices = (Device(),)

    monkeypatch.setattr(timing, "free_host_memory", lambda: 1)
    assert timing.room_for_chunk(Mesh()) is None
    huge = Figure("patches", 1, "measured", 1.0, 1.0, 10**15)
    assert timing.fits(huge, None) and not timing.fits(huge, 10**12)
    assert timing.fits(dataclasses.replace(huge, memory_bytes=None), 1)
    assert "MB" not in str(dataclasses.replace(huge, memory_bytes=None))


def test_what_does_not_fit_is_not_run(timed, monkeypatch):
    def run(*_):
        raise AssertionError("was run")

    with monkeypatch.context() as patch:
        patch.setattr(timing, "room_for_chunk", lambda mesh: 10_000)
        patch.setattr(timing, "seconds_per_step", run)
        figure = time_chunk(workload(), "patches", 2, make_mesh(1))
    assert figure.outcome == "too large" and figure.seconds is None
    assert figure.memory_bytes > 10_000 and "to be had" in figure.note
    # Of figures there are already, those count that fit into what is free now.
    choose()
    monkeypatch.setattr(cache, "room_for_chunk", lambda mesh: 4000)
    timed.clear()
    assert choose()[:2] == ("patches", 4)
    assert all(chunk <= 4 for _, chunk in timed)


def test_what_fails_is_skipped_and_said(monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 80 GB\nand more")

    monkeypatch.setattr(timing, "seconds_per_step", fail)
    figure = time_chunk(workload(), "patches", 1, make_mesh(1))
    # Another run may find more memory free, and tries again.
    assert (figure.outcome, figure.note) == ("too large", "RESOURCE_EXHAUSTED: 80 GB")
    room = figure.memory_bytes - 1
    assert not timing.fits(figure, room) and timing.fits(figure, room + 1)
    assert str(figure) == "patches, 1 client at a time: RESOURCE_EXHAUSTED: 80 GB"


def test_long_calls_are_not_repeated():
    calls = []

    def call(steps):
        calls.append(steps)
        return seconds * steps + (0.5 if len(calls) == 1 else 0)

    seconds = 0.05
    assert timing.seconds_per_step(call, 16, 3) == pytest.approx(0.05)
    assert calls == [1, 1, 5, 5, 5]
    calls.clear()
    seconds = 10
    assert timing.seconds_per_step(call, 16, 3) == 10.5 and calls == [1]
    # A cold accelerator's first call is none, though it is long.
    seconds = iter([30.0, 0.5])
    assert timing.seconds_per_step(lambda steps: next(seconds), 16, 3, "gpu") == 0.5


@pytest.mark.parametrize("algorithm", ["scaffold", "moon"])
def test_clients_with_states_are_timed_on_all_devices(algorithm):
    work = workload(algorithm=AlgorithmConfig(name=algorithm))
    figure = time_chunk(work, "shifted", 3, make_mesh(2), repeats=1)
    assert figure.outcome == "measured", figure.note
    assert 0 < figure.seconds < math.inf and figure.compile_seconds > 0


def test_a_measured_run_is_that_of_its_choice_given(tmp_path):
    dataset = noise_dataset(80, side=8, num_classes=CLASSES)
    open_chunk = dataclasses.replace(CONFIG.runtime, conv="patches")
    config = dataclasses.replace(
        CONFIG, num_clients=3, clients_per_round=2, rounds=1, runtime=open_chunk
    )
    lines = []
    run(config, tmp_path, dataset=dataset, say=lines.append)
    (said,) = (line for line in lines if "measured now" in line)
    choice = json.loads((tmp_path / "tuning.json").read_text())
    assert f"convolution: patches; {choice['clients_per_chunk']} client" in said
    (row,) = read_metrics(tmp_path)

    chosen = dataclasses.replace(open_chunk, clients_per_chunk=choice["clients_per_chunk"])
    given = dataclasses.replace(config, runtime=chosen)
    simulation = prepare(make_parts(given, make_federation(dataset, given)), make_mesh(1))
    assert "as configured" in simulation.description[1]
    metrics = simulation.advance(1)
    assert row["train_loss"] == float(metrics.train_loss)
    assert row["test_loss"] == float(simulation.evaluate(simulation.state)["test_loss"])


def test_every_pair_is_in_the_benchmark(monkeypatch):
    lines = []
    monkeypatch.setattr(tuning, "_ENOUGH", 0.0)
    config, names = dataclasses.replace(CONFIG, batch_size=4), ("patches", "shifted")
    figures = tuning.measure(
        config, largest_chunk=2, repeats=1, lowerings=names, side=8, say=lines.append
    )
    json.dumps(to_json_values(figures))
    first, slow, *_ = figures["figures"]
    assert len(figures["figures"]) == 4
    assert first["images_per_second"] == pytest.approx(4 / first["seconds"])
    assert (slow["clients_per_chunk"], slow["outcome"]) == (2, "no time")
    assert figures["fastest"]["seconds"] == min(f["seconds"] or 9 for f in figures["figures"])
    assert any(line.startswith("| patches | 1 |") for line in lines)
