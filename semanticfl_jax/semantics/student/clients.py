"""Whom a student is made for, and what decides it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ExperimentConfig, ModelConfig, to_dict
from semanticfl_jax.diffusion.fingerprint import fingerprint
from semanticfl_jax.registry import MODELS
from semanticfl_jax.semantics.building import OF_GENERATION, STARTING_NOISE, compute_dtype
from semanticfl_jax.semantics.student.images import StudentImages
from semanticfl_jax.semantics.student.teacher import CLIP, ENCODER, ENCODER_RESOLUTION

OF_TRAINING = ("steps", "batch_size", "learning_rate", "seed")
_OF_DIFFUSION = ("checkpoint", "timestep", "resolution")


@dataclasses.dataclass(frozen=True)
class ClientSide:
    """What a student is made for: the clients' side of it.

    Attributes:
      config: of the run.
      image_shape: H, W, 3, of the clients' images.
      mean: of each channel, by which clients normalise.
      std: likewise.
      class_names: for images that are generated.
    """

    config: ExperimentConfig
    image_shape: tuple[int, ...]
    mean: Sequence[float]
    std: Sequence[float]
    class_names: tuple[str, ...]

    @property
    def model(self) -> ModelConfig:
        """The student's network."""
        student, own = self.config.guidance.student, self.config.model
        name = student.model or own.name
        if name != own.name:
            own = ModelConfig(name=name, norm=own.norm if "norm" in MODELS[name].uses else "batch")
        if "width" not in MODELS[name].uses:
            return own
        return dataclasses.replace(own, width=student.width or self.config.model.width)


def expected_provenance(
    clients: ClientSide, images: StudentImages | None, checkpoint: Path | None
) -> dict[str, Any]:
    """Return what decides a student; needs no diffusion model.

    Args:
      clients: their side of it.
      images: that it is distilled on; None: not at hand, or to be generated.
      checkpoint: of the diffusion model; None: not at hand, or not needed.
    """
    guidance, student = clients.config.guidance, clients.config.guidance.student
    settings, own = to_dict(guidance), to_dict(student)
    provenance: dict[str, Any] = {"teacher": student.teacher, "images": student.images}
    if student.images == "generated":
        provenance |= {name: settings[name] for name in OF_GENERATION} | STARTING_NOISE
        provenance |= {"prompt": guidance.prompt, "class_names": list(clients.class_names)}
        provenance["max_images"] = student.max_images
    elif images is not None:
        provenance |= {"image_count": len(images.images), "images_sha256": images.sha256}
    if uses_diffusion(clients.config):
        provenance |= {name: settings[name] for name in _OF_DIFFUSION}
        provenance["dtype"] = compute_dtype(guidance)
        if checkpoint is not None:
            provenance["checkpoint_sha256"] = fingerprint(checkpoint)
    if student.teacher in ("diffusion", "random_unet"):
        provenance |= {"maps": own["maps"], "teacher_prompt": ""}
    if student.teacher == "encoder":
        provenance |= {"encoder": ENCODER, "encoder_resolution": ENCODER_RESOLUTION}
    if student.teacher != "labels":
        provenance |= {"dim": student.dim, "clip": CLIP}
    return {
        **provenance,
        **{name: own[name] for name in OF_TRAINING},
        "augmentation": list(clients.config.augmentation),
        "model": to_dict(clients.model),
        "image_shape": list(clients.image_shape),
        "mean": list(clients.mean),
        "std": list(clients.std),
    }


def uses_diffusion(config: ExperimentConfig) -> bool:
    """Return whether a student is made by means of a diffusion model."""
    student = config.guidance.student
    return student.teacher in ("diffusion", "random_unet") or student.images == "generated"
