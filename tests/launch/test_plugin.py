"""A plug-in's model, algorithm, data set, partition and task, on the command line."""

import json
import os

import pytest

from tests.launch.test_commands import ROOT, command, output

OWN = (
    "--plugin=tests.own_vit",
    "--config.dataset=own_stripes",
    "--config.dataset_settings.noise=10",
    "--config.task=own_smoothing",
    "--config.model.name=own_vit",
    "--config.partition.scheme=own_halves",
    "--config.num_clients=3",
    "--config.clients_per_round=2",
    "--config.public_per_class=2",
    "--config.local_epochs=1",
    "--config.rounds=2",
    "--config.learning_rate=0.05",
)


def test_five_entries_of_a_plugin_make_one_table(tmp_path):
    arguments = ["launch.compare", *OWN, "--workdir=runs", "--seeds=0,1"]
    arguments += ["--methods=fedavg; own_entropy; own_entropy algorithm.own_entropy.weight=0.5"]
    arguments += ["--config.model.own_vit.depth=2", "--config.algorithm.own_entropy.step=0.9"]
    arguments += ["--config.task_settings.epsilon=0.2"]
    code, text = output(command(*arguments, cwd=tmp_path))
    assert code == 0, text
    assert "| fedavg " in text and "| own_entropy (weight=0.5)" in text
    assert "Warning" not in text
    runs = sorted(path.name for path in (tmp_path / "runs").glob("*-seed*"))
    assert len(runs) == 6
    config = json.loads((tmp_path / "runs" / "own_entropy-seed1" / "config.json").read_text())
    assert config["model"]["own_vit"] == {"depth": 2, "width": 16}
    assert config["algorithm"]["own_entropy"] == {"weight": 0.1, "step": 0.9}
    assert config["dataset_settings"] == {"noise": 10.0}
    assert config["task_settings"] == {"epsilon": 0.2}
    plain = json.loads((tmp_path / "runs" / "fedavg-seed1" / "config.json").read_text())
    assert "own_entropy" not in plain["algorithm"]
    summary = json.loads((tmp_path / "runs" / "fedavg-seed0" / "summary.json").read_text())
    assert summary["dataset"] == "own_stripes" and summary["num_params"] > 1000
    # A run of it is resumed only with the same settings.
    again = ["launch.train", *OWN, "--workdir=runs/own_entropy-seed1", "--config.seed=1"]
    again += ["--config.algorithm.name=own_entropy", "--config.rounds=3"]
    again += ["--config.dataset_settings.noise=11"]
    code, text = output(command(*again, cwd=tmp_path))
    assert code == 2
    assert "dataset_settings.noise was 10.0, is 11.0" in text
    assert "task_settings.epsilon was 0.2, is 0.1" in text
    assert "model.own_vit.depth was 2, is 1" in text
    assert "algorithm.own_entropy.step was 0.9, is 0.5" in text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.own_vit.dept=2", "Did you mean model.own_vit.depth?"),
        ("--config.model.own_vit.depth=two", "model.own_vit.depth must be a whole number"),
        ("--config.dataset_settings.nose=2", "Did you mean dataset_settings.noise?"),
        ("--config.dataset_settings.noise=loud", "dataset_settings.noise must be a number"),
        ("--config.task_settings=0.2", "task_settings must be SmoothSettings with own_smoothing"),
        ("--config.algorithm.own_entropy.step=1", "is set, but algorithm.name is fedavg"),
    ],
)
def test_settings_of_a_plugin_are_checked(tmp_path, argument, message):
    code, text = output(command("launch.train", *OWN, "--workdir=run", argument, cwd=tmp_path))
    assert code == 2
    answer = text.splitlines()[-1]  # before it, that a flag of OWN is given twice
    assert answer.startswith("error: ") and message in answer


def test_help_lists_a_plugin_and_a_file_is_one_too(tmp_path):
    path = os.fspath(ROOT / "tests" / "own_vit.py")
    code, text = output(command("launch.train", f"--plugin={path}", "--help", cwd=tmp_path))
    assert code == 0
    assert "own_vit" in text and "A small vision transformer" in text
    assert "--config.model.own_vit.depth=1 .own_vit.width=16" in text
    assert "--config.dataset_settings.noise=20.0" in text
    assert "--config.task_settings.epsilon=0.1" in text
    assert "own_stripes" in text and "own_halves" in text and "Penalises confidence" in text
