"""A run's directory: locked, finished, set aside, damaged, and bound to its data."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax import __version__
from semanticfl_jax.errors import ConfigError, DirectoryInUseError
from semanticfl_jax.reporting.plots import curves
from semanticfl_jax.simulation import callbacks, checkpoint, workdir
from tests.federation import CLASSES, MEAN, STD, SoftmaxRegression
from tests.results import metrics_without_times
from tests.test_lock import HOLD

ROOT = Path(__file__).parents[2]
CONFIG = sfl.ExperimentConfig(
    dataset="digits",
    num_clients=4,
    clients_per_round=2,
    rounds=3,
    local_epochs=1,
    batch_size=8,
    public_per_class=0,
    partition=sfl.PartitionConfig("iid"),
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1),
)


def noise(seed=0, count=48, names=("$^$", "猫", "c", "d")):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % CLASSES
    return sfl.ImageDataset.from_arrays(
        images[:count], labels[:count], images[48:], labels[48:], names, mean=MEAN, std=STD
    )


def run(directory, config=CONFIG, dataset=None, **options):
    """A run's result, and what it said."""
    lines = []
    result = sfl.run(
        config,
        directory,
        dataset=dataset or noise(),
        model=SoftmaxRegression(CLASSES),
        progress=False,
        say=lines.append,
        **options,
    )
    return result, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("finished")
    run(directory)
    return directory


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def unfinish(directory, rounds=2):
    """Take back what the last of three rounds wrote, as if it had been killed before."""
    (directory / "summary.json").unlink()
    shutil.rmtree(directory / "checkpoints" / "3")
    rows = (directory / "metrics.jsonl").read_text().splitlines(keepends=True)
    (directory / "metrics.jsonl").write_text("".join(rows[:rounds]))


def test_a_finished_run_says_when_and_with_what_it_ended(copy):
    result, lines = run(copy)
    assert len(lines) == 1
    summary = json.loads((copy / "summary.json").read_text())
    assert summary["finished"] in lines[0] and summary["finished"][:2] == "20"
    assert f"3 rounds, on {summary['finished']}, with semanticfl_jax {__version__}" in lines[0]
    assert "--overwrite" in lines[0]
    assert result.summary == summary
    bound = json.loads((copy / "run.json").read_text())
    assert (bound["version"], bound["commit"]) == (__version__, summary["commit"])
    # Written by other code.
    summary |= {"commit": "0123456789", "versions": {"semanticfl_jax": "0.1.0"}}
    (copy / "summary.json").write_text(json.dumps(summary))
    _, lines = run(copy)
    assert "with semanticfl_jax 0.1.0 (commit 0123456789); the code is now " in lines[0]


def test_a_run_that_is_overwritten_is_set_aside_whole(copy, finished):
    made = ("client_tests.npz", "anchors.npz", "student.safetensors", "student.json")
    for name in (*made, "wandb.json", "mlflow.json", "tensorboard"):
        (copy / name).write_text("of other settings")
    before = sorted(path.relative_to(copy) for path in copy.rglob("*") if path.is_file())
    config = dataclasses.replace(CONFIG, learning_rate=0.1)
    with pytest.raises(sfl.ConfigError, match=r"or --overwrite.*learning_rate was 0.01, is 0.1"):
        run(copy, config)
    (copy / "notes.txt").write_text("mine")
    _, lines = run(copy, config, overwrite=True)
    (aside,) = copy.glob("before-*")
    assert lines[0] == f"what {copy} held is now in {aside}"
    assert sorted(p.relative_to(aside) for p in aside.rglob("*") if p.is_file()) == before
    assert (copy / "notes.txt").read_text() == "mine"
    assert json.loads((copy / "config.json").read_text())["learning_rate"] == 0.1
    assert (
        metrics_without_times(aside)
        == metrics_without_times(finished)
        != metrics_without_times(copy)
    )
    # A directory without a run has nothing to be set aside.
    run(copy.parent / "new", overwrite=True)
    assert not list((copy.parent / "new").glob("before-*"))


def test_a_directory_that_another_process_writes_to_is_refused(copy):
    unfinish(copy)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(copy)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        for overwrite in (False, True):
            with pytest.raises(DirectoryInUseError, match=f"process {process.pid} on"):
                run(copy, overwrite=overwrite)
        process.send_signal(signal.SIGKILL)
    run(copy)
    assert not (copy / ".lock").exists()


def test_a_later_simulation_takes_the_directory_over(tmp_path):
    options = {"dataset": noise(), "model": SoftmaxRegression(CLASSES), "progress": False}
    first = sfl.Simulation(CONFIG, workdir=tmp_path, say=None, **options)
    first.run(1)
    steps = iter(first)
    _, lines = run(tmp_path)
    assert any("resuming after round 1" in line for line in lines)
    with pytest.raises(sfl.SemanticFLError, match="taken over by a later Simulation"):
        next(steps)


def test_the_newest_checkpoint_that_is_whole_is_used(copy, finished):
    (copy / "summary.json").unlink()
    # Emptied, whatever it is: one kind of damage of many (tests/chaos.py has others).
    for path in (copy / "checkpoints" / "3").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    _, lines = run(copy)
    (warning,) = [line for line in lines if line.startswith("warning: checkpoint")]
    assert f"{copy / 'checkpoints' / '3'} cannot be used" in warning
    assert any("resuming after round 2 of 3" in line for line in lines)
    assert (copy / "checkpoints-damaged" / "3").is_dir()
    assert metrics_without_times(copy) == metrics_without_times(finished)
    assert json.loads((copy / "summary.json").read_text())["rounds"] == 3


def test_without_any_whole_checkpoint_the_run_is_refused_and_nothing_is_lost(copy):
    (copy / "summary.json").unlink()
    files = [path for path in (copy / "checkpoints").rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(sfl.SemanticFLError, match="none of the checkpoints in "):
        run(copy)
    assert all(path.exists() for path in files)


ZEROS = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ((), ZEROS, r"server was not there and would be float32\[3\]"),
        (ZEROS, (), r"server was float32\[3\] and would be not there"),
        ({"m": ZEROS}, {"v": ZEROS}, r"server/m was float32\[3\] and would be not there"),
        ([ZEROS], [ZEROS[1:]], r"server/0 was float32\[3\] and would be float32\[2\]"),
    ],
)
def test_a_run_is_resumed_with_a_state_of_the_same_form_alone(tmp_path, first, then, message):
    def one_round(state):
        lines = []
        rule = sfl.ServerRule(lambda state, x, seen: (x, state), init=lambda model: state)
        given = {"dataset": noise(), "model": SoftmaxRegression(CLASSES), "progress": False}
        given |= {"workdir": tmp_path, "algorithm": sfl.Algorithm("own", rule), "say": lines.append}
        with sfl.Simulation(CONFIG, **given) as simulation:
            simulation.run(1)
        return [line for line in lines if "own was given as an object" in line]

    assert not one_round(first)
    with pytest.raises(ConfigError, match=message):
        one_round(then)
    assert one_round(first)  # is not changed by that; its functions are not compared


def test_a_checkpoint_whose_rows_are_lost_is_not_gone_on_from(copy, finished):
    unfinish(copy, rounds=3)
    rows = (finished / "metrics.jsonl").read_bytes()
    (copy / "metrics.jsonl").write_bytes(rows[: rows.index(b"\n") + 20])
    with pytest.raises(sfl.SemanticFLError, match=r"metrics.jsonl has the rows of 1 rounds only"):
        run(copy)


def test_a_summary_that_is_damaged_or_was_never_written_is_made_anew(copy):
    whole = json.loads((copy / "summary.json").read_text())
    times = ("finished", "compile_seconds", "commit")
    for content in (None, b"", b'{"rounds": 3'):
        if content is None:  # killed after the last checkpoint
            (copy / "summary.json").unlink()
            (copy / "plots" / "curves.png").unlink()
        else:
            (copy / "summary.json").write_bytes(content)
        _, lines = run(copy)
        damaged = [line for line in lines if "summary.json is damaged" in line]
        assert len(damaged) == (content is not None)
        made = json.loads((copy / "summary.json").read_text())
        assert {k: v for k, v in made.items() if k not in times} == {
            k: v for k, v in whole.items() if k not in times
        }
        assert (copy / "plots" / "curves.png").is_file()


def test_an_empty_configuration_is_named_and_can_be_set_aside(copy):
    (copy / "config.json").write_bytes(b"")
    with pytest.raises(sfl.ConfigError, match=r"config.json is damaged: it is empty.*overwrite"):
        run(copy)
    run(copy, overwrite=True)


def test_a_picture_that_fails_costs_a_line(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr(callbacks, "plot_curves", fail)
    _, lines = run(tmp_path)
    path = tmp_path / "plots" / "curves.png"
    assert f"warning: {path} was not drawn (RuntimeError: no font)" in lines
    assert json.loads((tmp_path / "summary.json").read_text())["rounds"] == 3
    assert (tmp_path / "plots" / "partition.png").is_file()
    assert curves.plot_curves is not fail


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "data: the images or inputs themselves"),
        ({"count": 44}, r"data: training images were uint8 \[48, 8, 8, 3\], are uint8 \[44, 8"),
        ({"names": ("a", "b", "c", "d")}, "data: class names were "),
    ],
)
def test_other_data_are_refused_by_what_changed(copy, changed, message):
    unfinish(copy)
    with pytest.raises(sfl.ConfigError, match=message):
        run(copy, dataset=noise(**changed))


def test_rounds_that_have_rows_are_counted_from_the_first():
    assert workdir.rounds_in([]) == 0
    assert workdir.rounds_in([{"round": 1}, {"round": 2}, {"round": 4}]) == 2


def test_rows_that_are_lost_of_a_finished_run_are_said(copy):
    metrics = copy / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:1]))
    result, lines = run(copy)
    assert (
        f"warning: {metrics} has the rows of 1 of 3 rounds only: the history is not whole" in lines
    )
    assert len(result.history) == 1 and result.summary["rounds"] == 3


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"rounds": "many"}',
        '{"rounds": true}',
        '{"rounds": 3, "versions": null}',
        '{"rounds": 3, "privacy": "x"}',
        '{"rounds": ' + "[" * 100_000,
    ],
)
def test_a_summary_without_its_rounds_is_damaged(copy, content):
    (copy / "summary.json").write_text(content)
    said = []
    assert workdir.read_summary(copy, said.append) is None
    assert said and "summary.json is damaged" in said[0]


def test_a_logger_that_is_missing_leaves_no_lock(tmp_path):
    config = dataclasses.replace(CONFIG, runtime=sfl.RuntimeConfig(loggers=("tensorboard",)))
    with (
        mock.patch.dict(sys.modules, {"tensorboardX": None}),
        pytest.raises(sfl.MissingDependencyError),
    ):
        run(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_reads_and_writes_that_end_after_a_failed_one_are_not_told_of(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(checkpoint, "_quiet", False)
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(str(error)))
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(str(args.exc_value)))
    checkpoint.Checkpoints(tmp_path / "checkpoints").close()

    async def ours():
        pass

    closed, other = RuntimeError("Event loop is closed"), RuntimeError("other")
    code = types.SimpleNamespace(co_filename="/site-packages/orbax/checkpoint/serialization.py")
    for error in (closed, other):
        sys.excepthook(type(error), error, None)
        for thing in (types.SimpleNamespace(cr_code=code), coroutine := ours(), None):
            sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=thing))
        coroutine.close()
    assert told == ["other"] * 3


@pytest.mark.parametrize("had", [None, "x", []])
def test_a_record_of_the_data_that_was_edited_is_a_difference_all_the_same(tmp_path, had):
    (tmp_path / "run.json").write_text(json.dumps({"data": "a", "data_parts": had}))
    with pytest.raises(ConfigError, match="data was a, is b"):
        workdir.check_bound(tmp_path, {"data": "b", "data_parts": {"labels": "c"}})


@pytest.mark.parametrize("name", ["model", "algorithm"])
def test_an_object_in_place_of_the_configurations_is_a_difference(tmp_path, name):
    (tmp_path / "run.json").write_text(json.dumps({"data": "a", "student": "x", name: "mine"}))
    workdir.check_bound(tmp_path, {"data": "a", "student": None, name: "mine"})
    with pytest.raises(ConfigError, match=f"{name} was mine, is not given"):
        workdir.check_bound(tmp_path, {"data": "a", name: None})
    (tmp_path / "run.json").write_text(json.dumps({"data": "a"}))
    with pytest.raises(ConfigError, match=f"{name} was not given, is mine"):
        workdir.check_bound(tmp_path, {"data": "a", name: "mine"})


def test_json_is_read_with_a_mark_and_however_deep_it_is(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"rounds": 3}')
    assert workdir.read_json(tmp_path / "x.json") == {"rounds": 3}
    (tmp_path / "x.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"x\.json is damaged"):
        workdir.read_json(tmp_path / "x.json")


def test_checkpoints_have_states_of_clients_where_they_had_them(tmp_path):
    beside = "in the files of client_state_memory=disk in 2 processes"
    workdir.claim(tmp_path, CONFIG, {workdir.STATES: beside})
    workdir.check_states(tmp_path, workdir.IN_CHECKPOINTS)  # nothing was saved
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    workdir.check_states(tmp_path, beside)
    for now in (workdir.IN_CHECKPOINTS, beside.replace("2", "3")):
        with pytest.raises(ConfigError, match=f"are {beside}, and would be {now}; use the same"):
            workdir.check_states(tmp_path, now)


def test_checkpoints_of_before_have_states_of_clients_in_them(finished):
    workdir.check_states(finished, workdir.IN_CHECKPOINTS)
    with pytest.raises(ConfigError, match="are in the checkpoints, and would be on the moon"):
        workdir.check_states(finished, "on the moon")
