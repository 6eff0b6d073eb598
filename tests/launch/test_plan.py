"""The planning command: what it prints and writes, without accelerators."""

import json

import pytest

from tests.launch.test_commands import command, output

SMALL = ("--config.model.name=cnn", "--config.num_clients=4", "--config.clients_per_round=2")


def test_a_plan_is_printed_and_written(tmp_path):
    arguments = ("--config.dataset=digits", *SMALL, "--topology=cpu:2,cpu:1", "--json=plan.json")
    code, text = output(command("launch.plan", *arguments, "--programs=round", cwd=tmp_path))
    assert code == 0, text
    plans = json.loads((tmp_path / "plan.json").read_text())
    assert [(plan["topology"], plan["devices"]) for plan in plans] == [("cpu:2", 2), ("cpu:1", 1)]
    assert all(plan["compiled"][0]["failed"] is None for plan in plans)
    assert "| cpu:2 | round | canonical | 1 |" in text and "| cpu:1 | CPU |" in text


def test_steps_are_printed_and_written(tmp_path):
    arguments = ("--images=64,16,8,4", *SMALL, "--topology=cpu:1", "--json=steps.json")
    lowerings = ("--lowerings=native,patches", "--chunks=1,2")
    code, text = output(command("launch.plan", *arguments, *lowerings, cwd=tmp_path))
    assert code == 0, text
    steps = json.loads((tmp_path / "steps.json").read_text())
    told = [(step["conv"], step["clients"]) for step in steps]
    assert told == [("native", 1), ("native", 2), ("patches", 1), ("patches", 2)]
    assert all(step["flops"] > 0 and step["failed"] is None for step in steps)
    assert "| patches | 2 |" in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--programs=everything", "--programs must be of round, block, evaluation, first_contact"),
        ("--topology=v9:2x2", "v9:2x2"),
        ("--chunks=0", "--chunks must be whole numbers of at least 1"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, argument, message):
    code, text = output(command("launch.plan", argument, cwd=tmp_path))
    assert code == 2
    assert message in text and "Traceback" not in text
