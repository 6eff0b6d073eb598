"""The command that makes an anchors file, with networks that have no features."""

import numpy as np

from tests.launch.test_commands import command, output
from tests.launch.test_distill_student import SD1

ANCHORS = (
    "--config=digits",
    "--config.model.name=linear",
    f"--config.guidance.checkpoint={SD1}",
    "--config.guidance.resolution=32",
    "--config.guidance.maps=vae",
    "--config.public_per_class=2",
    "--workdir=anchors",
)


def test_a_network_without_features_needs_a_width(tmp_path):
    code, text = output(command("launch.extract_anchors", *ANCHORS, cwd=tmp_path))
    assert code == 2, text
    assert "guidance.dim must be given with model.name=linear" in text
    made = command("launch.extract_anchors", *ANCHORS, "--config.guidance.dim=4", cwd=tmp_path)
    code, text = output(made)
    assert code == 0, text
    assert np.load(tmp_path / "anchors" / "anchors.npz")["visual"].shape == (10, 4)
