"""The page of a run's files lists every file, column and key that the code writes."""

import json
import re
from pathlib import Path

import pytest

import semanticfl_jax as sfl
from semanticfl_jax.reporting.client_tests import MODELS
from semanticfl_jax.reporting.report import compare
from semanticfl_jax.simulation import workdir
from tests.reporting.made_up import ACCURACIES, made_up_config, write_run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"

# Columns that the run of these tests has not.
_OF_SOME_RUNS = {"private", "epsilon", "clip", "clock", "staleness", "attack_success"}
_OF_SOME_RUNS |= {"diverged", "diverged_clients", "diverged_count"}
_OF_SOME_RUNS |= {"train_loss_...", "server_step", "mixing"}


@pytest.fixture(scope="module")
def sections():
    """{heading: `code` in the first cell of its tables' rows}."""
    found = {}
    for part in re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        cells = re.findall(r"^\| (`[^|]*?) \|", text, re.MULTILINE)
        found[heading] = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    return found


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A run whose clients keep images for testing."""
    path = tmp_path_factory.mktemp("run")
    config = sfl.ExperimentConfig(
        dataset="digits",
        augmentation=(),
        rounds=1,
        local_epochs=1,
        batch_size=32,
        model=sfl.ModelConfig("linear"),
        client_test=sfl.ClientTestConfig(share=0.2),
        runtime=sfl.RuntimeConfig(num_devices=1),
    )
    sfl.run(config, workdir=path, progress=False, say=None)
    return path


def listed(path, names):
    """Whether a file, or the folder that it is in, is listed."""
    parts = path.parts
    return any(
        "/".join(parts[:n]) + ("/" if n < len(parts) else "") in names
        for n in range(1, len(parts) + 1)
    )


def test_every_file_of_a_run_is_listed(directory, sections):
    files = [each.relative_to(directory) for each in directory.rglob("*") if each.is_file()]
    assert len(files) > 10
    assert [str(each) for each in files if not listed(each, sections["Files of a run"])] == []


def test_every_file_that_belongs_to_a_run_is_listed(sections):
    names = {name.removesuffix("/") for name in sections["Files of a run"]}
    assert {*workdir._OF_A_RUN, workdir.BOUND, workdir.CONFIG} - names == {workdir.PLOTS}


def test_every_column_and_key_is_listed(directory, sections):
    columns = sections["A line of metrics.jsonl"]
    assert columns >= _OF_SOME_RUNS
    assert columns >= {f"{model}_client_..." for model in MODELS}
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        assert {key for key in json.loads(line) if "_client_" not in key} <= columns
    summary = json.loads((directory / "summary.json").read_text())
    keys = sections["summary.json"] | columns
    assert {key for key in summary if "_client_" not in key} <= keys


def test_every_file_of_a_comparison_is_listed(tmp_path, sections):
    runs = [
        write_run(tmp_path / f"{name}-{seed}", made_up_config(name, seed), values)
        for (name, seed), values in ACCURACIES.items()
    ]
    compare(runs, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(written) > 5 and written <= sections["Files of a comparison"]
