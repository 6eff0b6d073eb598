"""What is refused of a student: before it is made, and where clients cannot use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semanticfl_jax.config import ConfigError
from semanticfl_jax.diffusion.settings import check_settings, map_channels
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.student.clients import ClientSide
from semanticfl_jax.semantics.student.images import StudentImages, held_out_count
from semanticfl_jax.semantics.student.network import Student
from semanticfl_jax.semantics.student.teacher import ENCODER_CHANNELS

#: By how much normalisations may differ of which nothing is said: a share of the deviation, and of
#: means in deviations.
_STD_APART, _MEAN_APART = 0.1, 0.1


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


def inexact_start(student: Student, mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Return what to say of a start from the student where images are normalised otherwise.

    Clients' networks get its weights, and see images by their own mean and deviation.

    Args:
      student: that clients' networks start from.
      mean: of each channel, by which clients normalise.
      std: likewise.
    """
    its_mean, its_std = (np.asarray(student.about[name], float) for name in ("mean", "std"))
    mean, std = np.asarray(mean, float), np.asarray(std, float)
    wider = np.abs(std / its_std - 1).max() > _STD_APART
    if not wider and (np.abs(mean - its_mean) / its_std).max() <= _MEAN_APART:
        return None

    def told(mean: np.ndarray, std: np.ndarray) -> str:
        both = (", ".join(f"{value:.2f}" for value in of) for of in (mean, std))
        return "mean {} and deviation {}".format(*both)

    return (
        f"the student's images were normalised by {told(its_mean, its_std)}, the clients' are by "
        f"{told(mean, std)}: its start is inexact until normalisation has adapted"
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
