"""What is refused of a student: before it is made, and where clients cannot use it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticfl_jax.config import ConfigError
from semanticfl_jax.diffusion.settings import check_settings, map_channels
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.student.clients import ClientSide
from semanticfl_jax.semantics.student.images import StudentImages, held_out_count
from semanticfl_jax.semantics.student.network import Student
from semanticfl_jax.semantics.student.teacher import ENCODER_CHANNELS


def check_before_making(
    clients: ClientSide, images: StudentImages | None, checkpoint: Path | None
) -> None:
    """Raise `SemanticFLError` for settings that would fail after the teacher's work alone.

    Args:
      clients: whom the student is made for.
      images: that it is distilled on; None: to be generated.
      checkpoint: of the diffusion model; None: not needed.
    """
    guidance, student = clients.config.guidance, clients.config.guidance.student
    if student.teacher == "labels":
        return
    if images is not None:
        count = len(images.images)
    else:
        count = guidance.generated_per_class * len(clients.class_names)
        count = min(count, student.max_images or count)
    if student.teacher == "encoder":
        channels = ENCODER_CHANNELS
    else:
        assert checkpoint is not None
        check_settings(checkpoint, student.maps, guidance.resolution, "guidance.student.maps")
        widths = map_channels(checkpoint)
        channels = sum(widths[name] for name in student.maps or widths)
    rows = count - held_out_count(count)
    if student.dim > min(rows - 1, channels):
        raise ConfigError(
            f"guidance.student.dim must be at most {min(rows - 1, channels)} here: its teacher has "
            f"{channels} features of an image, and {rows} images are trained on; got {student.dim}"
        )


def check_fits(student: Student, clients: ClientSide) -> None:
    """Raise `SemanticFLError` if clients cannot use the student with their images.

    In each step it is shown what the network is shown; before, each image is resized for it.
    """
    in_each_step = clients.config.guidance.student.targets == "each_step"
    if in_each_step and student.image_shape != tuple(clients.image_shape):
        raise SemanticFLError(
            "guidance.student.targets must be once with this student: it was made for images of "
            f"{list(student.image_shape)}, and the clients' are {list(clients.image_shape)}"
        )
    same = np.allclose(
        [student.about["mean"], student.about["std"]], [clients.mean, clients.std], atol=1e-6
    )
    if in_each_step and not same:
        raise SemanticFLError(
            "guidance.student.targets must be once with this student: it was made for images that "
            "are normalised otherwise"
        )
