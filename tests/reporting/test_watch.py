"""Progress of runs that are finished, under way, killed, or damaged."""

import io
import itertools
import json
import math
import os
import socket
import subprocess
import sys

import pytest
from rich.console import Console

from semanticfl_jax.files import read_json_object, write_json
from semanticfl_jax.reporting import watch
from semanticfl_jax.reporting.runs import ReportError, load_run
from semanticfl_jax.reporting.writers.metrics import MetricsWriter, read_metrics
from tests.reporting.made_up import MSE, made_up_config, write_run

NOW = 1_800_000_000.0


def under_way(directory, rounds=10, done=4, seconds=2.0, age=5.0, cut=False):
    directory.mkdir(parents=True)
    write_json(directory / "config.json", made_up_config("moon", 3, rounds=rounds))
    with MetricsWriter(directory) as writer:
        for number in range(1, done + 1):
            accuracy = {2: 0.7, 4: 0.6}.get(number)
            row = {"round": number, "seconds": seconds}
            writer.write(row if accuracy is None else row | {"test_accuracy": accuracy})
    (directory / ".lock").touch()
    if cut:
        with open(directory / "metrics.jsonl", "a") as file:
            file.write('{"round": 5, "sec')
    written(directory, age)
    os.utime(directory / ".lock", (NOW - age - 60, NOW - age - 60))
    return directory


def written(directory, age):
    for path in directory.iterdir():
        os.utime(path, (NOW - age, NOW - age))


def test_a_run_under_way_tells_round_last_best_and_time_left(tmp_path):
    run = watch.look(under_way(tmp_path / "a"), NOW)
    assert (run.state, run.round, run.rounds, run.method, run.seed) == ("running", 4, 10, "moon", 3)
    assert (run.last, run.best, run.seconds, run.left) == (0.6, 0.7, 2.0, 12.0)
    # A last line that is being written is no damage.
    assert watch.look(under_way(tmp_path / "b", cut=True), NOW).state == "running"


@pytest.mark.parametrize(
    ("done", "seconds", "age", "state"),
    [
        (4, 2.0, 119, "running"),
        (4, 2.0, 121, "silent"),
        (4, 60.0, 599, "running"),
        (4, 60.0, 601, "silent"),
        (0, 2.0, 899, "starting"),
        (0, 2.0, 901, "silent"),
    ],
)
def test_silence_is_judged_by_how_long_rounds_take(tmp_path, done, seconds, age, state):
    run = watch.look(under_way(tmp_path / "a", done=done, seconds=seconds, age=age), NOW)
    assert run.state == state
    assert (run.left is None) == (state != "running")


def test_a_run_that_was_resumed_may_compile_as_long_as_one_that_begins(tmp_path):
    directory = under_way(tmp_path / "a", age=10_000)
    for age, state in ((899, "running"), (901, "silent")):
        os.utime(directory / ".lock", (NOW - age, NOW - age))
        assert watch.look(directory, NOW).state == state
    # What it writes when it is resumed, its former rows, is no new round.
    rows = read_metrics(directory)
    os.utime(directory / ".lock", (NOW - 800, NOW - 800))
    with MetricsWriter(directory, rows[:2]) as writer:
        assert watch.look(directory, NOW).state == "running"
        writer.write({"round": 3, "seconds": 2.0})
        os.utime(directory / "metrics.jsonl", (NOW - 121, NOW - 121))
    assert watch.look(directory, NOW).state == "silent"


def test_a_run_that_was_killed_on_this_machine_is_stopped_at_once(tmp_path):
    directory = under_way(tmp_path / "a")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    who = {"host": socket.gethostname(), "pid": gone.pid}
    (directory / ".lock").write_text(json.dumps(who))
    assert watch.look(directory, NOW).state == "stopped"
    (directory / ".lock").write_text(json.dumps(who | {"host": "elsewhere"}))
    written(directory, 5)
    assert watch.look(directory, NOW).state == "running"


def test_a_last_evaluation_without_a_number_is_a_dash(tmp_path):
    config = made_up_config(rounds=3)
    write_run(tmp_path / "a", config, (0.1, 0.2, None))
    run = watch.look(tmp_path / "a", NOW)
    assert math.isnan(run.last) and run.best == 0.2
    text = io.StringIO()
    watch.watch([tmp_path], console=Console(file=text, width=140))
    assert "–" in text.getvalue() and "20.00 %" in text.getvalue()


def test_a_finished_run_is_finished_however_old_and_names_its_metric(tmp_path):
    directory = write_run(tmp_path / "a", made_up_config(), (3.0, 1.0, 2.0), MSE)
    written(directory, 1e6)
    run = watch.look(directory, NOW)
    assert (run.state, run.round, run.last, run.best) == ("finished", 3, 2.0, 1.0)
    # Made longer, it is under way again.
    write_json(directory / "config.json", made_up_config(rounds=5))
    assert watch.look(directory, NOW).state == "stopped"
    (directory / ".lock").touch()
    written(directory, 1)
    assert watch.look(directory, NOW).state == "running"


def test_a_summary_of_fewer_rounds_than_were_done_since_does_not_end_a_run(tmp_path):
    directory = write_run(tmp_path / "a", made_up_config(rounds=5), (0.1, 0.2, 0.3, 0.4, 0.5))
    summary = read_json_object(directory / "summary.json")
    # It was made longer, and killed before it wrote a new summary.
    write_json(directory / "summary.json", summary | {"rounds": 3})
    assert watch.look(directory, NOW).state == "stopped"
    with pytest.raises(ReportError, match="not finished"):
        load_run(directory)


def test_a_run_that_was_stopped_because_it_diverged_is_over_only_to_those_who_watch(tmp_path):
    directory = write_run(tmp_path / "a", made_up_config(rounds=3))
    summary = read_json_object(directory / "summary.json")
    write_json(directory / "summary.json", summary | {"finished": None, "diverged_round": 3})
    written(directory, 1e6)
    assert watch.look(directory, NOW).state == "diverged"
    with pytest.raises(ReportError, match="not finished"):
        load_run(directory)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "summary.json"])
@pytest.mark.parametrize("content", ["nonsense\n{}\n", "[]\n\n[]"])
def test_damage_is_shown_and_not_raised(tmp_path, name, content):
    directory = under_way(tmp_path / "a")
    (directory / name).write_text(content)
    assert watch.look(directory, NOW).state == "damaged"


def test_runs_are_found_in_their_directory_and_in_the_one_above(tmp_path):
    runs = [under_way(tmp_path / "runs" / name) for name in ("a", "b")]
    (tmp_path / "runs" / "notes").mkdir()
    assert watch.find([tmp_path / "runs"]) == runs
    assert watch.find([runs[1], tmp_path / "runs"]) == runs[::-1]
    with pytest.raises(ReportError, match="nowhere: no such directory"):
        watch.find([tmp_path / "nowhere"])


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_shows_every_run_those_under_way_first(tmp_path, width):
    write_run(tmp_path / "done-seed0", made_up_config())
    under_way(tmp_path / "[now]-seed3", age=1)
    os.utime(tmp_path / "[now]-seed3" / "metrics.jsonl")
    text = io.StringIO()
    watch.watch([tmp_path], console=Console(file=text, width=width))
    lines = text.getvalue().splitlines()
    assert lines[0].strip() == "1 running, 1 finished"
    assert all(len(line) <= width for line in lines)
    (now,) = [number for number, line in enumerate(lines) if "[now]-seed3" in line]
    (done,) = [number for number, line in enumerate(lines) if "done-seed0" in line]
    assert now < done
    assert "4/10" in lines[now] and "60.00 %" in lines[now] and "70.00 %" in lines[now]
    assert "12 s" in lines[now] and "finished" in lines[done]
    assert ("moon" in lines[now]) == (width == 140)


def test_watching_ends_when_all_runs_are_finished(tmp_path, monkeypatch):
    directory = under_way(tmp_path / "a")
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        write_run(tmp_path / f"b{len(looks)}", made_up_config())
        with MetricsWriter(directory, read_metrics(directory)[:4]) as writer:
            for number in range(5, 11):
                writer.write({"round": number, "seconds": 1.0})
        write_json(directory / "summary.json", {"rounds": 10})

    monkeypatch.setattr(watch.time, "sleep", sleep)
    text = io.StringIO()
    watch.watch([tmp_path], every=7, console=Console(file=text, width=100, force_terminal=True))
    assert looks == [7] and "2 finished" in text.getvalue()


def test_watching_goes_on_for_a_while_when_all_that_is_left_was_stopped(tmp_path, monkeypatch):
    write_run(tmp_path / "done", made_up_config())
    stopped = under_way(tmp_path / "next")
    (stopped / ".lock").unlink()
    clock = itertools.count(0, 25)
    looks = []
    monkeypatch.setattr(watch.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(watch.time, "sleep", looks.append)
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    watch.watch([tmp_path], console=terminal)
    assert len(looks) == 2
