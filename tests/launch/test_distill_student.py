"""The command that makes a student, and a run that uses what it made."""

import json
from pathlib import Path

from tests.launch.test_commands import command, output

SD1 = Path(__file__).parents[1] / "diffusion" / "goldens" / "sd1"
STUDENT = (
    "--plugin=tests.tiny_plugin",
    "--config=digits",
    "--config.model.name=tiny_net",
    f"--config.guidance.checkpoint={SD1}",
    "--config.guidance.resolution=32",
    "--config.guidance.lambda_kd=0",
    "--config.guidance.lambda_con=0",
    "--config.guidance.student.images=public",
    "--config.guidance.student.maps=vae,down_0",
    "--config.guidance.student.dim=3",
)


def test_a_student_is_made_and_then_used(tmp_path):
    made = command(
        "launch.distill_student",
        *STUDENT,
        "--config.guidance.student.steps=4",
        "--workdir=student",
        "--probe_images=100",
        cwd=tmp_path,
    )
    code, text = output(made)
    assert code == 0, text
    about = json.loads((tmp_path / "student" / "student.json").read_text())
    assert about["provenance"]["images"] == "public"
    assert about["provenance"]["image_count"] == 200
    assert {"held_out_linear", "digits_linear", "digits_knn"} <= about["measured"].keys()
    trained = command(
        "launch.train",
        *STUDENT,
        "--workdir=run",
        "--config.guidance.enabled=true",
        "--config.guidance.student.enabled=true",
        "--config.guidance.student.file=student/student.safetensors",
        "--config.rounds=1",
        "--config.clients_per_round=1",
        "--config.local_epochs=1",
        "--config.runtime.num_devices=1",
        cwd=tmp_path,
    )
    code, text = output(trained)
    assert code == 0, text
    assert "student from student/student.safetensors" in text
    assert "fedavg with student on digits" in text
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["student"] == "none"
