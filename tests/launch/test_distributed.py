"""Several processes as one run: the same numbers, files written once, errors and stops shared."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from semanticfl_jax.reporting.writers.metrics import read_metrics
from tests.launch.kept_states import MEMORIES
from tests.results import metrics_without_times

ROOT = Path(__file__).parents[2]
ROUNDS = 8
# Clients, their states and their own tests are spread over the processes, and so are test images.
SMALL = (
    "--plugin=tests.tiny_plugin",
    "--config.model.name=tiny_net",
    "--config.algorithm.name=scaffold",
    "--config.clients_per_round=3",
    "--config.local_epochs=1",
    "--config.eval_every=4",
    "--config.client_test.share=0.2",
    "--config.client_test.fine_tune_steps=2",
    f"--config.rounds={ROUNDS}",
)
SECONDS = 200  # after which a hang is a failure; a machine under load gets some slack


def start(cwd, *arguments, devices=1, module="launch.train", **settings):
    settings = {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cwd / "xla"),
        # As in conftest.py, but for its eight devices.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        **settings,
    }
    environment = {**os.environ, **settings}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env={name: value for name, value in environment.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start_two(cwd, *arguments, second=()):
    """Two processes of one run; `second` are further arguments of the second one."""
    together = (f"--coordinator_address={free_address()}", "--num_processes=2", *arguments)
    return [
        start(cwd, *together, "--process_id=0"),
        start(cwd, *together, "--process_id=1", *second),
    ]


def finish(processes):
    """[(standard output, standard error), ...] and exit statuses; all must end in time."""
    try:
        outputs = [process.communicate(timeout=SECONDS) for process in processes]
        # What JAX's transport says of itself is nothing of ours.
        outputs = [(re.sub(r"\[Gloo\].*\n", "", output), error) for output, error in outputs]
        return outputs, [process.returncode for process in processes]
    finally:
        for process in processes:
            process.kill()


def numbers(directory):
    """Rows of the metrics without times, and the parameters and client states of the last round."""
    rows = metrics_without_times(directory)
    place, handler = (directory / "checkpoints").absolute(), ocp.StandardCheckpointHandler()
    with ocp.CheckpointManager(place, item_handlers=handler) as manager:
        step = manager.latest_step()
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        template = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
            manager.item_metadata(step).tree,
        )
        return rows, step, manager.restore(step, args=ocp.args.StandardRestore(template))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The directory of the run in one process of two devices."""
    cwd = tmp_path_factory.mktemp("single")
    outputs, codes = finish([start(cwd, "--workdir=one", *SMALL, devices=2)])
    assert codes == [0], outputs
    return cwd / "one"


# Another transport may add in another order, hence float32's rounding.
CLOSE = {"rtol": 1e-6, "atol": 1e-7}


def require_same_rows(rows, expected_rows):
    assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    for row, expected in zip(rows, expected_rows, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, int | float):
                np.testing.assert_allclose(row[name], value, **CLOSE, err_msg=name)


@pytest.fixture(scope="module")
def kept(one, tmp_path_factory):
    """The directory of runs whose clients' states stay with two processes."""
    cwd, address = tmp_path_factory.mktemp("kept"), free_address()
    arguments = [str(one / "config.json"), str(cwd)]
    module = "tests.launch.kept_states"
    outputs, codes = finish(
        [start(cwd, address, str(number), *arguments, module=module) for number in range(2)]
    )
    assert codes == [0, 0], outputs
    (said, _), (nothing, _) = outputs
    assert said.count(f"resuming after round 2 of {ROUNDS}") == len(MEMORIES)
    assert nothing == ""
    return cwd


def client_figures(directory):
    """What each model is worth to every client, after the last round."""
    with np.load(directory / "client_tests.npz") as saved:
        return {name: saved[name] for name in saved.files}


def require_identical(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("memory", MEMORIES)
def test_images_and_states_stay_with_the_processes_that_keep_them(one, kept, memory):
    run = kept / memory
    rows, step, state = numbers(run)
    expected_rows, expected_step, expected = numbers(one)
    assert step == expected_step == ROUNDS and not jax.tree.leaves(state["clients"])
    require_identical(rows, expected_rows)
    require_identical(client_figures(run), client_figures(one))
    for name in ("params", "batch_stats", "server"):
        require_identical(state[name], expected[name])
    for process in range(2):
        folder = run / "client_states" / f"process-{process}-of-2"
        if memory == "disk":
            found = [np.load(folder / f"{i}.npy") for i in range(len(list(folder.glob("*.npy"))))]
            assert {path.stem for path in (folder / "undo").iterdir()} == {"6", "7", "8"}
        else:
            with np.load(folder / f"{ROUNDS}.npz") as saved:
                found = [saved[f"row_{index}"] for index in range(len(saved))]
            assert {path.stem for path in folder.iterdir()} == {"6", "8"}
        require_identical(found, [x[process::2] for x in jax.tree.leaves(expected["clients"])])


def test_two_processes_are_one_run_also_when_one_of_them_is_stopped(one, tmp_path):
    metrics = tmp_path / "two" / "metrics.jsonl"
    processes = start_two(tmp_path, "--workdir=two", *SMALL)
    deadline = time.monotonic() + SECONDS
    while not metrics.exists() or not metrics.read_text():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    outputs, codes = finish(processes)
    assert codes == [130, 130], outputs
    saved = len(read_metrics(tmp_path / "two"))
    assert 1 <= saved < ROUNDS
    assert all(f"stopped after round {saved}" in error for _, error in outputs)
    assert not (tmp_path / "two" / "summary.json").exists()

    outputs, codes = finish(start_two(tmp_path, "--workdir=two", *SMALL))
    assert codes == [0, 0], outputs
    (said, _), (nothing, _) = outputs
    assert f"resuming after round {saved} of {ROUNDS}" in said
    assert "2 x cpu in 2 processes" in said
    assert said.count("final_accuracy") == 1
    assert nothing == ""

    rows, step, state = numbers(tmp_path / "two")
    expected_rows, expected_step, expected_state = numbers(one)
    assert step == expected_step == ROUNDS
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), state, expected_state)
    require_same_rows(rows, expected_rows)
    figures, expected_figures = (client_figures(run) for run in (tmp_path / "two", one))
    assert any(name.startswith("fine_tuned") for name in figures)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), figures, expected_figures)
    made = {str(path.relative_to(one)) for path in one.glob("*")}
    assert {
        str(path.relative_to(tmp_path / "two")) for path in (tmp_path / "two").glob("*")
    } == made
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["device"] == "2 x cpu in 2 processes"
    assert not list(tmp_path.rglob("*.tmp"))


def test_all_processes_compute_the_model_that_a_run_ends_with(tmp_path):
    """IFCA chooses it of several, in a program of all devices."""
    module, address = "tests.launch.counted_tests", free_address()
    outputs, codes = finish(
        [start(tmp_path, address, str(number), "run", module=module) for number in range(2)]
    )
    assert codes == [0, 0], outputs
    assert [said for said, _ in outputs] == ["1\n", "1\n"]


def test_compiled_programs_are_kept_where_all_processes_find_them(tmp_path):
    """Which of them are found cannot be seen here: on CPU, JAX's keys differ by process."""
    together = (f"--coordinator_address={free_address()}", "--num_processes=2")
    outputs, codes = finish(
        [
            start(
                tmp_path,
                "--workdir=run",
                *together,
                f"--process_id={number}",
                "--config.rounds=1",
                "--config.model.name=linear",
                "--config.local_epochs=1",
                JAX_COMPILATION_CACHE_DIR=None,
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
                XDG_CACHE_HOME=str(tmp_path / f"home-{number}"),
            )
            for number in range(2)
        ]
    )
    assert codes == [0, 0], outputs
    assert any("round" in path.name for path in (tmp_path / "run" / "xla").iterdir())
    assert not list(tmp_path.glob("home-*/semanticfl_jax/xla"))


def test_what_is_wrong_in_one_process_ends_all(tmp_path):
    processes = start_two(tmp_path, "--workdir=run", *SMALL, second=["--config.seed=1"])
    outputs, codes = finish(processes)
    assert codes == [2, 2], outputs
    (_, first), (_, second) = outputs
    assert "seed was 0, is 1" in second
    assert "error: process 1: " in first
    assert "seed was 0, is 1" in first
    assert "Traceback" not in first + second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_processes=2", "--process_id=1"], "given together or not at all"),
        (["--coordinator_address=here", "--num_processes=2", "--process_id=0"], "HOST:PORT"),
        (["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"], "below num_proc"),
        (["--distributed"], "--coordinator_address= --num_processes= --process_id="),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, arguments, message):
    ((_, error),), codes = finish([start(tmp_path, "--workdir=run", *arguments)])
    assert codes == [2]
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
