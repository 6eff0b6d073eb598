"""The commands as a user runs them: mistakes, a run that is killed, a run without diffusers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config.model.name=cnn",
    "--config.clients_per_round=1",
    "--config.local_epochs=1",
    "--config.eval_every=100",
    "--config.runtime.num_devices=1",
)


def command(*arguments, cwd, **more):
    settings = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": str(cwd / "cache"),
    }
    given = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=given | settings | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(process):
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.roundz=3"], "unknown config field roundz. Did you mean rounds?"),
        (["--config.rounds", "many"], "rounds must be a whole number, got 'many'"),
        (["--config.model.name=vit"], "model.name must be one of resnet10, cnn, linear, got 'vit'"),
        (["--rounds=3"], "Fields are set as --config.rounds=VALUE"),
        (["--plugin=nowhere"], "--plugin=nowhere: there is no module nowhere"),
        (["--config.algorithm=moon"], "as in --config.algorithm.name=moon"),
        (["--config.partition.alpha=0"], "partition.alpha must be greater than 0"),
        (["--config=nothing"], "no such file. Installed: audit, availability, cifar10, "),
        (["--config.rounds"], "--config.rounds needs a value"),
        (["extra"], "unexpected argument 'extra'"),
        (["--bogus=1"], "Unknown command line flag 'bogus'"),
        (["--config.lr=0.1"], "unknown config field lr. Did you mean learning_rate?"),
        (["--config.beta=1"], "unknown config field beta. "),
        (["--lr=0.1"], "Unknown command line flag 'lr'. Did you mean --config.learning_rate?"),
        (["--alpha=0.1"], "Did you mean --config.partition.alpha?"),
        (["--config.partition.file="], "partition.file must be a path, got ''"),
        (["--config.guidance.prompt=a {} {style}"], "guidance.prompt must be a text with one {}"),
        (["--workdir=gs://bucket/run"], "--workdir must be a path on this machine"),
        (["--workdir="], "--workdir must be a path, got ''"),
        (["--workdir=/proc/run"], "--workdir=/proc/run cannot be written to"),
        (["--config.num_clients=5000"], "(1437, after public_per_class=20 took 200), got 5000"),
        (["--config=launch/configs/cifar10.py", "--config.data_dir=/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, arguments, message):
    began = time.monotonic()
    code, text = output(command("launch.train", "--workdir=run", *arguments, cwd=tmp_path))
    assert code == 2
    assert message in text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    # Loading JAX alone takes a second; a machine under load gets some slack.
    assert time.monotonic() - began < 20


def test_what_is_missing_is_asked_for(tmp_path):
    code, text = output(command("launch.train", cwd=tmp_path))
    assert code == 2
    assert text.startswith("error: --workdir=DIR is missing")
    code, text = output(
        command("launch.train", "--workdir=run", cwd=tmp_path, JAX_PLATFORMS="cuda")
    )
    assert code == 2
    assert text.startswith("error: JAX cannot start") and "JAX_PLATFORMS=cuda asks for" in text
    assert text.count("\n") == 1


def test_comparison_checks_algorithms_and_seeds_first(tmp_path):
    for flag, message in (
        ("--algorithms=fedavg,fedsgd", "algorithm.name must be one of fedavg, fedprox"),
        ("--seeds=0,x", "--seeds must be whole numbers, got 'x'"),
    ):
        code, text = output(command("launch.compare", "--workdir=runs", flag, cwd=tmp_path))
        assert code == 2
        assert message in text
    assert not (tmp_path / "runs").exists()


def test_a_run_killed_with_no_warning_goes_on_from_its_checkpoint(tmp_path):
    arguments = ["launch.train", "--workdir=run", "--config.rounds=12", *SMALL]
    metrics = tmp_path / "run" / "metrics.jsonl"
    process = command(*arguments, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    text, _ = process.communicate()
    assert "compiled in" in text and "were compiled before" not in text
    code, text = output(command(*arguments, cwd=tmp_path))
    assert code == 0, text
    assert "resuming after round" in text
    assert "were compiled before: " in text
    assert list((tmp_path / "cache" / "semanticfl_jax" / "xla").iterdir())
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["round"] for row in rows] == list(range(1, 13))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rounds"] == 12


WITHOUT_DIFFUSION = """
import sys
import semanticfl_jax as sfl
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.building import checkpoint_directory, expected_provenance
from semanticfl_jax.data.sources import load_dataset
from semanticfl_jax.simulation.anchors import anchor_images
import numpy as np

config = sfl.ExperimentConfig(
    dataset="digits", augmentation=(), model=sfl.ModelConfig(name="cnn"), rounds=1,
    clients_per_round=1, local_epochs=1, algorithm=sfl.AlgorithmConfig(name="semanticfl"),
    guidance=sfl.GuidanceConfig(anchors_file="anchors.npz", enabled=True),
)
dataset = load_dataset("digits", None)
federation = make_federation(dataset, config)
images = anchor_images(dataset, federation.public, federation.partition, config.guidance)
checkpoint = checkpoint_directory(config.guidance)
provenance = expected_provenance(
    config.guidance, checkpoint, images, dataset.class_names, dim=128, seed=0
)
eye = np.eye(10, 128, dtype=np.float32)
Anchors(eye, eye[:, :16], dataset.class_names, provenance, {}, 0).save("anchors.npz")
sfl.run(config, "run")
unwanted = {"diffusers", "transformers", "tensorflow", "torch"} & set(sys.modules)
assert not unwanted, unwanted
"""


def test_training_from_saved_anchors_needs_no_diffusion_library(tmp_path):
    (tmp_path / "script.py").write_text(WITHOUT_DIFFUSION)
    code, text = output(command("script", cwd=tmp_path))
    assert code == 0, text
    assert "guidance" in text


TINY = (
    "--config.model.name=linear",
    "--config.rounds=1",
    "--config.clients_per_round=1",
    "--config.local_epochs=1",
    "--config.augmentation=none",
    "--config.runtime.num_devices=1",
)


def with_nobody_reading(*arguments, cwd, **more):
    """The exit status of a command whose output goes into a pipe that is closed."""
    read, write = os.pipe()
    os.close(read)
    settings = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cwd / "cache"), **more}
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=cwd,
            env=os.environ | settings,
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=300,
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr.decode()


def test_training_and_report_where_nobody_reads_and_on_an_ascii_terminal(tmp_path):
    ascii = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "LANG": "C"}
    train = command("launch.train", "--workdir=a", *TINY, cwd=tmp_path, **ascii)
    first = train.stdout.readline()
    train.stdout.close()  # as `head -1` does
    assert first.isascii() and train.wait(timeout=300) == 0
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["rounds"] == 1
    assert list((tmp_path / "a" / "plots").glob("*.png"))

    # A second seed, so that the table has deviations.
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps({**config, "seed": 1}))
    report = ("launch.report", "a", "b", "--html=page.html")
    code, text = output(command(*report, cwd=tmp_path, **ascii))
    assert code == 0 and text.isascii() and "+/-" in text, text
    (tmp_path / "page.html").unlink()
    assert with_nobody_reading(*report, cwd=tmp_path) == (0, "")
    assert "±" in (tmp_path / "page.html").read_text(encoding="utf-8")
