"""The history of timings: what is compared with what, flagged and kept."""

import argparse
import json
import subprocess

import pytest

from comparisons import compare, history

MACHINE = {"cpu": "AMD EPYC(tm) 7B13", "cores": 2}
IN_GIT = not subprocess.run(
    ["git", "rev-parse", "HEAD~1"], cwd=compare.ROOT, capture_output=True, check=False
).returncode


def measured(monkeypatch, now, before, busy=0.0):
    """An entry of runs that took so long, and the order of the trees."""
    medians, order = {"now": iter(now), "before": iter(before)}, []

    def run(command, directory, root):
        side = "now" if root == compare.ROOT else "before"
        order.append(side)
        assert command[1:] == ["-m", "launch.benchmark", "--task=many_clients", "--rounds=1"]
        return {"seconds_per_round": {"median": next(medians[side])}, "busy_before": busy}

    monkeypatch.setattr(compare, "run", run)
    args = argparse.Namespace(task="many_clients", more=["--rounds=1"], alternations=len(now))
    return history.measure(args, "abc", compare.ROOT / "elsewhere"), order


def test_medians_of_pairs_decide(monkeypatch):
    entry, order = measured(monkeypatch, [1.2, 1.0, 9.0], [1.0, 1.0, 8.0])
    assert order == ["now", "before", "before", "now", "now", "before"]
    assert entry["time_ratio_of_pairs"] == [1.2, 1.0, 1.125]
    assert entry["time_ratio"] == {"median": 1.125, "min": 1.0, "max": 1.2}
    assert not entry["slower"] and not entry["others_busy"]
    entry, _ = measured(monkeypatch, [1.16], [1.0], busy=0.5)
    assert entry["slower"] and entry["others_busy"]
    json.dumps(entry)


def test_entries_are_added_to_their_machine(monkeypatch, tmp_path):
    path = tmp_path / "history" / f"{history.machine_kind(MACHINE)}.jsonl"
    assert path.name == "amd-epyc-tm-7b13-2-cores.jsonl"
    assert history.read(path) == []
    for ratio in (1.0, 2.0):
        history.append(path, measured(monkeypatch, [ratio], [1.0])[0])
    assert [entry["slower"] for entry in history.read(path)] == [False, True]


@pytest.mark.skipif(not IN_GIT, reason="needs the repository's history")
def test_the_other_side_is_the_last_entrys_commit_or_the_parent(tmp_path):
    assert history.earlier([], "many_clients", []) == "HEAD~1"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=compare.ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    entries = [
        {"task": "many_clients", "flags": [], "commit": f"{head}-dirty"},
        {"task": "many_clients", "flags": [], "commit": "0" * 40},
        {"task": "many_clients", "flags": ["--rounds=1"], "commit": "1" * 40},
    ]
    assert history.earlier(entries, "many_clients", []) == head
    assert history.earlier(entries, "many_clients", ["--rounds=1"]) == "HEAD~1"
    history.unpack("HEAD", tmp_path)
    assert (tmp_path / "launch" / "benchmark.py").is_file()
    with pytest.raises(SystemExit, match="--against=nothing"):
        history.unpack("nothing", tmp_path)


def test_a_slower_tree_ends_with_status_1(monkeypatch, tmp_path, capsys):
    for ratio, status, place in ((1.0, 0, ["--data_dir=here"]), (1.5, 1, ["--data_dir", "here"])):
        monkeypatch.setattr(history, "unpack", lambda commit, directory: None)
        monkeypatch.setattr(
            compare,
            "run",
            lambda command, directory, root, ratio=ratio: {
                "seconds_per_round": {"median": ratio if root == compare.ROOT else 1.0},
                "busy_before": 0.0,
            },
        )
        flags = ["--against=abc", "--alternations=1", f"--folder={tmp_path}", "--"]
        flags += [*place, "--rounds=1"]
        assert history.main(flags) == status
        assert ("SLOWER" in capsys.readouterr().out) == bool(status)
    (path,) = tmp_path.iterdir()
    assert [entry["flags"] for entry in history.read(path)] == [["--rounds=1"]] * 2
