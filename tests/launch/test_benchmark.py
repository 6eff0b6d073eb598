"""The benchmark command: which flags go with which task, and what it writes."""

import json
from pathlib import Path

import pytest

from tests.launch.test_commands import command, output

SD1 = Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=anchors", "--rounds=3"], "--rounds is not for --task=anchors, which takes --ch"),
        (
            ["--task=many_clients", "--dtype=bfloat16"],
            "--dtype is not for --task=many_clients, which takes --data_dir",
        ),
        (
            ["--task=augmentation", "--batch_sizes=2"],
            "--batch_sizes is not for --task=augmentation, which takes --width, --repeats",
        ),
        (["--rounds=0"], "--rounds must be at least 1, got 0"),
        (
            ["--task=pfl_cifar10", "--width=8"],
            "--width is not for --task=pfl_cifar10, which takes --data_dir, --rounds",
        ),
        (
            ["--task=many_clients", "--num_clients=50", "--cohort=51"],
            "--cohort must be at most --num_clients (50), got 51",
        ),
        (
            ["--task=tuning", "--rounds=2"],
            "--rounds is not for --task=tuning, which takes --width, --cohort, --dtype, --repeats",
        ),
        (["--task=guidance", "--cohort=5"], "--cohort is not for --task=guidance, which takes"),
        (
            ["--task=anchors", "--batch_sizes=1,0"],
            "--batch_sizes must be whole numbers of at least",
        ),
        (["--task=anchors", "--checkpoint=/nowhere"], "'/nowhere' is neither tiny-sd (bundled)"),
        (["--data_dir=/nowhere"], "/nowhere"),
        (["more"], "unexpected argument 'more'"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path, arguments, message):
    code, text = output(command("launch.benchmark", *arguments, cwd=tmp_path))
    assert code == 2
    assert message in text and "Traceback" not in text


def test_extraction_is_timed(tmp_path):
    arguments = ("--task=anchors", f"--checkpoint={SD1}", "--batch_sizes=2", "--repeats=1")
    code, text = output(command("launch.benchmark", *arguments, "--json=f.json", cwd=tmp_path))
    assert code == 0, text
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["task"] == "anchors"
    assert figures["machine"]["cores"] >= 1 and figures["machine"]["device_kind"] == "cpu"
    assert figures["maps"] == ["vae", "mid", "up_1", "up_2", "up_3"]
    assert figures["batches"][0]["images_per_second"]["median"] > 0
