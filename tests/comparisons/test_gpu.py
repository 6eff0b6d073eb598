"""The script for one GPU: rehearsed on CPU with tiny settings, and what it does when steps fail."""

import json
import os
import subprocess
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from comparisons import noise_cifar10
from semanticfl_jax.data.sources import load_dataset

SCRIPT = Path(__file__).parents[2] / "comparisons" / "gpu.sh"
PEERS = ["torch_width4", "pfl_research", "torch_pfl"]
STEPS = [
    "tests",
    "tune_width4",
    "family_width4",
    "pfl_cifar10",
    "anchors_32",
    "anchors_64",
    "tune_width2",
    "family_width2",
    "many_clients",
    "guidance",
]


def gpu(tmp_path, **given):
    """The script's status, its steps by name, and its directory."""
    out = tmp_path / "gpu"
    given = {"OUT": str(out), "SMALL": "1", **given}
    done = subprocess.run(
        [SCRIPT], env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    assert (out / "steps.jsonl").is_file(), done.stderr
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    return done.returncode, {step["step"]: step for step in steps}, out


@pytest.fixture
def stub(tmp_path):
    """Makes a Python that writes its arguments down and ends as its shell line says."""

    def make(line):
        path = tmp_path / "env" / "bin" / "python"
        path.parent.mkdir(parents=True)
        path.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\n{line}\n')
        path.chmod(0o755)
        return str(path)

    return make


def test_every_step_is_asked_for_and_peers_where_they_are(stub, tmp_path):
    python = stub("exit 0")
    env = str(tmp_path / "env")
    status, steps, out = gpu(tmp_path, PYTHON=python, PFL_ENV=env, TORCH_ENV=env)
    assert status == 0
    assert sorted(steps) == sorted(STEPS + PEERS)
    assert {step["came_to"] for step in steps.values()} == {"done"}
    with tarfile.open(f"{out}.tar.gz") as archive:
        assert "./steps.jsonl" in archive.getnames()
    calls = (tmp_path / "calls").read_text()
    assert calls.count("comparisons.compare") == 3
    assert calls.count("--task=family_cifar10") == 5


def test_a_step_that_fails_does_not_stop_the_others(stub, tmp_path):
    python = stub('case "$*" in *guidance*) exit 3;; *import*torch*) exit 1;; esac')
    status, steps, _ = gpu(tmp_path, PYTHON=python)
    assert status == 1
    assert steps["guidance"]["came_to"] == "failed" and steps["guidance"]["status"] == 3
    assert sorted(steps) == sorted(STEPS)
    assert steps["many_clients"]["came_to"] == "done"


def test_nothing_begins_without_time(stub, tmp_path):
    status, steps, _ = gpu(tmp_path, PYTHON=stub("exit 0"), LIMIT="0", ONLY="tests guidance")
    assert status == 2
    assert {name: step["came_to"] for name, step in steps.items()} == {
        "tests": "out of time",
        "guidance": "out of time",
    }


def test_noise_is_read_as_cifar10(tmp_path):
    noise_cifar10.write(tmp_path, per_batch=20)
    dataset = load_dataset("cifar10", str(tmp_path))
    assert dataset.train_images.shape == (100, 32, 32, 3) and len(dataset.test_labels) == 20
    assert np.bincount(dataset.train_labels).tolist() == [10] * 10


@pytest.mark.slow
def test_a_rehearsal_on_cpu(tmp_path):
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    status, steps, out = gpu(tmp_path, LIMIT="900", XLA_FLAGS=quick)
    torch = [name for name in PEERS if name.startswith("torch") and find_spec("torch")]
    expected = dict.fromkeys(STEPS + torch, "done")
    assert {name: step["came_to"] for name, step in steps.items()} == expected
    assert status == 0
    for name in STEPS[1:] + torch:
        assert json.loads((out / f"{name}.json").read_text())["task"]
    family = json.loads((out / "family_width4.json").read_text())
    assert family["share_of_peak"] > 0 and "bfloat16" in " ".join(family["description"])
