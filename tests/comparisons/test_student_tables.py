"""The script of the student's tables: every run that it asks for is one that can be made."""

import os
import subprocess
from pathlib import Path

import pytest

from launch.configs import cifar10_cpu
from semanticfl_jax.config import ExperimentConfig, to_dict
from semanticfl_jax.config.methods import parse_methods, parse_seeds, plan_methods
from semanticfl_jax.config.overrides import parse

SCRIPT = Path(__file__).parents[2] / "comparisons" / "student_tables.sh"


def calls_of(table, tmp_path):
    """The arguments of each comparison that a table asks for."""
    stub, log = tmp_path / "python", tmp_path / "calls"
    stub.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" >> {log}; printf "\\0" >> {log}\n')
    stub.chmod(0o755)
    given = {"DATA": "data", "IMAGES": "images.zip", "OUT": "out", "PYTHON": str(stub)}
    subprocess.run([SCRIPT, table], env={**os.environ, **given}, check=True, capture_output=True)
    return [call.split("\0") for call in log.read_text().split("\0\0") if call]


@pytest.mark.parametrize(
    ("table", "methods"),
    [
        ("main", [14]),
        ("main_more", [14, 14, 14]),
        ("algorithms", [13]),
        ("parts", [7, 4, 3]),
        ("heads", [13]),
        ("protocol", [3]),
    ],
)
def test_every_run_of_a_table_is_valid(table, methods, tmp_path):
    planned = []
    for arguments in calls_of(table, tmp_path):
        assert arguments[:3] == ["-m", "launch.compare", "--config=launch/configs/cifar10_cpu.py"]
        flags = dict(argument[2:].split("=", 1) for argument in arguments[2:])
        overrides = {
            name.removeprefix("config."): parse(
                ExperimentConfig, name.removeprefix("config."), value
            )
            for name, value in flags.items()
            if name.startswith("config.")
        }
        values, seeds = to_dict(cifar10_cpu.get_config()), parse_seeds(flags["seeds"].split(","))
        runs = plan_methods(values, overrides, parse_methods(flags["methods"]), seeds)
        planned.append(len(runs) / 3)
        students = [run.guidance.student for run in runs.values() if run.guidance.uses_student]
        assert {student.images for student in students} <= {"dataset:tiny_imagenet"}
        assert {student.directory for student in students} <= {"out/students"}
    assert planned == methods
