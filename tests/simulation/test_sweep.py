"""Runs side by side: shares of the machine, results as alone, failures, and a stop."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import semanticfl_jax as sfl
from semanticfl_jax.errors import ConfigError, SemanticFLError, Stopped
from semanticfl_jax.plugins import load_plugins
from semanticfl_jax.simulation import sweep

ROOT = Path(__file__).parents[2]
PLUGINS = ("tests.own_vit", "tests.tiny_plugin")


def test_cores_and_gpus_are_split_and_no_two_shares_overlap(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6, 9, 11})
    parts = sweep.shares(2, {"CUDA_VISIBLE_DEVICES": "0,2,4"})
    assert [part.cores for part in parts] == [(3, 6, 11), (5, 9)]
    assert parts[0].environment == {
        "JAX_NUM_CPU_DEVICES": "3",
        "PJRT_NPROC": "6",
        "CUDA_VISIBLE_DEVICES": "0,4",
    }
    assert parts[1].environment["CUDA_VISIBLE_DEVICES"] == "2"
    forced = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    assert all(not part.environment for part in sweep.shares(5, forced))
    with pytest.raises(ConfigError, match="at most the number of cores, 5, got 6"):
        sweep.shares(6, forced)
    with pytest.raises(ConfigError, match="at most the number of GPUs, 3, got 4"):
        sweep.shares(4, {"CUDA_VISIBLE_DEVICES": "0,2,4"})
    with pytest.raises(ConfigError, match="at least 1"):
        sweep.shares(0, forced)


def test_gpus_are_numbered_as_cuda_counts_them(monkeypatch, tmp_path):
    for name in ("nvidia4", "nvidia6", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sweep, "_NODES", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    parts = sweep.shares(2, {})
    assert [part.environment["CUDA_VISIBLE_DEVICES"] for part in parts] == ["0", "1"]


def test_several_jobs_are_refused_on_a_tpu(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "_PCI", tmp_path)
    monkeypatch.setattr(sweep, "_NODES", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    for name, device in (("card", "0x0042"), ("chip", "0x0063")):
        assert len(sweep.shares(2, {})) == 2
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text("0x1ae0\n")
        (tmp_path / name / "device").write_text(f"{device}\n")
    with pytest.raises(ConfigError, match="--jobs must be 1 on a TPU"):
        sweep.shares(2, {})
    assert len(sweep.shares(1, {})) == 1
    assert len(sweep.shares(2, {"JAX_PLATFORMS": "cpu"})) == 2


@pytest.fixture(scope="module")
def config():
    load_plugins(PLUGINS)
    return sfl.ExperimentConfig(
        dataset="own_stripes",
        model=sfl.ModelConfig("tiny_net"),
        partition=sfl.PartitionConfig("iid"),
        augmentation=(),
        num_clients=3,
        clients_per_round=2,
        public_per_class=0,
        local_epochs=1,
        rounds=3,
        runtime=sfl.RuntimeConfig(num_devices=2),
    )


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for tests.own_vit, as a plug-in


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
@pytest.mark.usefixtures("importable")
def test_runs_side_by_side_are_those_alone_and_a_failure_is_named(tmp_path, config):
    runs = {
        "seed0": config,
        "broken": dataclasses.replace(config, data_dir="/nowhere", dataset="image_folder"),
        "seed1": dataclasses.replace(config, seed=1),
    }
    lines = []
    with pytest.raises(SemanticFLError, match=r"(?s)runs failed:\n  broken: .*/nowhere.*log"):
        sweep.run_side_by_side(runs, tmp_path, 2, plugins=PLUGINS, say=lines.append)
    assert lines[:2] == ["[1/3] seed0: started", "[2/3] broken: started"]
    assert any(line.startswith("seed1: done in ") and "accuracy" in line for line in lines)
    for name in ("seed0", "seed1"):
        alone = sfl.run(runs[name], dataset=None, progress=False, say=lambda line: None)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["final_accuracy"] == alone.summary["final_accuracy"]
        rows = [
            json.loads(row) for row in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        assert [r["train_loss"] for r in rows] == [r["train_loss"] for r in alone.history]


class Pretended:
    """A process that ends with a status, at once or when it is asked to."""

    def __init__(self, status):
        self.returncode, self.signals = status, []

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        self.signals.append(number)
        self.returncode = 130

    def wait(self):
        assert self.returncode is not None


@pytest.fixture
def pretended(monkeypatch):
    """`begin({name: status})`: runs that end so; None: when they are asked to."""

    def begin(statuses):
        made = {name: Pretended(status) for name, status in statuses.items()}

        def start(name, config, directory, share, flags):
            (directory / "logs" / f"{name}.log").write_text(f"said by {name}")
            return sweep._Started(made[name], share, time.monotonic())

        monkeypatch.setattr(sweep, "_start", start)
        monkeypatch.setattr(sweep, "_POLL_SECONDS", 0.01)
        return made

    return begin


def test_what_diverged_is_told_from_what_failed_by_its_exit_status(tmp_path, pretended):
    pretended({"a": 3, "b": 2})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "summary.json").write_text('{"rounds": 3, "diverged_round": 2}')
    said = []
    assert sweep.run_side_by_side({"a": None}, tmp_path, 1, say=said.append) == ["a"]
    with pytest.raises(SemanticFLError, match="b: said by b"):
        sweep.run_side_by_side({"b": None}, tmp_path, 1, say=said.append)


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
def test_no_run_is_left_behind_when_something_fails(tmp_path, pretended):
    made = pretended({"a": None, "b": None})

    def say(line):
        if line.startswith("[2/2]"):
            raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal"):
        sweep.run_side_by_side({"a": None, "b": None}, tmp_path, 2, say=say)
    assert made["a"].signals == [signal.SIGTERM] and made["b"].signals == []


def test_a_run_that_starts_while_a_signal_comes_is_told_once(tmp_path, pretended, monkeypatch):
    made = pretended({"a": None})
    start = sweep._start

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGHUP)
        return start(*arguments)

    monkeypatch.setattr(sweep, "_start", interrupted)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup ignore it
    try:
        with pytest.raises(Stopped):
            sweep.run_side_by_side({"a": None}, tmp_path, 1, say=lambda line: None)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert made["a"].signals == [signal.SIGTERM]


@pytest.mark.usefixtures("importable")
def test_a_signal_stops_all_and_what_was_done_is_saved(tmp_path, config):
    long = dataclasses.replace(config, rounds=2000)
    script = (
        "import sys; from pathlib import Path; import semanticfl_jax as sfl\n"
        "from semanticfl_jax.config import from_dict; import json\n"
        "from semanticfl_jax.plugins import load_plugins\n"
        "from semanticfl_jax.simulation import sweep\n"
        f"load_plugins({PLUGINS})\n"
        "config = from_dict(sfl.ExperimentConfig, json.load(open(sys.argv[1])))\n"
        f"sweep.run_side_by_side({{'a': config, 'b': config}}, sys.argv[2], 1, plugins={PLUGINS})"
    )
    (tmp_path / "config.json").write_text(json.dumps(sfl.config.to_dict(long)))
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "config.json", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    metrics = tmp_path / "a" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") > 1):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=120)
    assert "Stopped: stopped; runs under way were saved" in text
    assert "a: stopped after" in text and "b: started" not in text
    done = metrics.read_text().count("\n")
    assert 1 < done < 2000
    with sfl.Simulation(long, workdir=tmp_path / "a", progress=False) as simulation:
        assert simulation.round == done
        assert next(iter(simulation)).round == done + 1
