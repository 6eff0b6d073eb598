"""Settings of guidance and of the student without effect are refused, with the reason."""

import pytest

from semanticfl_jax.config import ConfigError, ExperimentConfig, from_dict

LABELS = {"control": "labels", "images": "public"}
ENCODER = {"control": "encoder", "images": "public"}
FILE = {"file": "a.safetensors", "images": "public"}


def configured(student, guidance):
    """A run with a student and without anchors."""
    alone = {"enabled": True, "lambda_kd": 0, "lambda_con": 0}
    values = {"guidance": {**alone, **guidance, "student": {"enabled": True, **student}}}
    return from_dict(ExperimentConfig, values)


@pytest.mark.parametrize(
    ("student", "guidance", "message"),
    [
        (LABELS | {"dim": 64}, {}, "student.dim is set, but guidance.student.control is labels"),
        (LABELS, {"timestep": 50}, "timestep is set, but guidance.student.control is labels"),
        (LABELS, {"resolution": 64}, "resolution is set, but guidance.student.control is labels"),
        (ENCODER, {"checkpoint": "a/b"}, "checkpoint is set, but guidance.student.control is enc"),
        (ENCODER, {"dtype": "bfloat16"}, "dtype is set, but guidance.student.control is encoder"),
        (ENCODER, {"diffusion_batch_size": 8}, "diffusion_batch_size is set, but .*is encoder"),
        (
            ENCODER | {"images": "generated"},
            {"timestep": 50},
            "timestep is set, but guidance.student.control is encoder",
        ),
        ({"images": "public", "model": "cnn", "width": 8}, {}, "width is set, but .*model is cnn"),
        ({"directory": "d"}, {}, "student.directory is set, but the bundled student is made"),
        (FILE | {"directory": "d"}, {}, "directory is set, but the student of .*file is made"),
        (FILE | {"steps": 9}, {}, "student.steps is set, but the student of .*file is made"),
        (FILE | {"batch_size": 9}, {}, "batch_size is set, but the student of .*file is made"),
        (FILE | {"learning_rate": 9.0}, {}, "learning_rate is set, but the student of .*file is"),
        (FILE | {"seed": 9}, {}, "student.seed is set, but the student of .*file is made"),
        (
            {"file": "a", "max_images": 9},
            {},
            "student.max_images is set, but the student of guidance.student.file is made",
        ),
        (
            {"images": "public"},
            {"revision": "x"},
            "revision is set, but guidance.checkpoint is tiny-sd, no hub id",
        ),
        (
            {"images": "public"},
            {"revision": "x", "checkpoint": "/models/sd15"},
            "revision is set, but guidance.checkpoint is /models/sd15, no hub id",
        ),
    ],
)
def test_settings_without_effect_are_refused(student, guidance, message):
    with pytest.raises(ConfigError, match=f"guidance.*{message}"):
        configured(student, guidance)


@pytest.mark.parametrize(
    ("student", "guidance"),
    [
        # A directory's images are brought to that side, whatever the teacher.
        (ENCODER | {"images": "directory", "data_dir": "d"}, {"resolution": 64}),
        # The diffusion model draws them.
        (LABELS | {"images": "generated"}, {"checkpoint": "a/b", "dtype": "bfloat16"}),
        # Anchors are made with it.
        (ENCODER, {"timestep": 50, "lambda_con": 1.0}),
        # Compared with what the file says of itself.
        (FILE | {"dim": 64, "max_images": 9}, {"timestep": 50}),
        (
            {"images": "public", "width": 8, "directory": "d"},
            {"revision": "x", "checkpoint": "a/b"},
        ),
    ],
)
def test_settings_with_an_effect_are_not(student, guidance):
    configured(student, guidance)
