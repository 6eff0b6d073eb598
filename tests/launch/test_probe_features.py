"""The probe command, from its flags to its files, on the goldens."""

import json
from pathlib import Path

import pytest

from tests.launch.test_commands import command, output

SD1 = Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"
ARGUMENTS = (
    "launch.probe_features",
    "--config=digits",
    f"--config.guidance.checkpoint={SD1}",
    "--workdir=probe",
)


def test_table_numbers_and_plot_are_written(tmp_path):
    sizes = ("--train_images=100", "--test_images=60", "--seeds=3")
    code, text = output(command(*ARGUMENTS, *sizes, cwd=tmp_path))
    assert code == 0, text
    table = (tmp_path / "probe" / "probe.md").read_text()
    assert table.partition("\n\n![")[0] in text
    assert "| up_3 |" in table and "| AMDA, adaptive |" in table
    result = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert (result["dataset"], result["seeds"], result["timestep"]) == ("digits", [3], 150)
    assert len(result["checkpoint_sha256"]) == 64 and result["versions"]["jax"]
    assert (tmp_path / "probe" / "probe.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seeds=0,x", "--seeds must be whole numbers, got 'x'"),
        ("--test_images=3", "test_images must be at least 50, got 3"),
        ("--config.guidance.timestep=-1", "guidance.timestep must be from 0 to 999"),
        ("--config.guidance.checkpoint=/nowhere", "'/nowhere' is neither tiny-sd (bundled)"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, argument, message):
    code, text = output(command(*ARGUMENTS, argument, cwd=tmp_path))
    assert code == 2
    assert message in text and "Traceback" not in text
