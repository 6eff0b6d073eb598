"""From images to a student: the diffusion model's one run over them, and the student's training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from semanticfl_jax import __version__
from semanticfl_jax.config import (
    ConfigError,
    ExperimentConfig,
    ModelConfig,
    RuntimeConfig,
    to_dict,
)
from semanticfl_jax.config.student import BUNDLED
from semanticfl_jax.diffusion.batches import discard
from semanticfl_jax.diffusion.fingerprint import fingerprint
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import write_json
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.registry import MODELS
from semanticfl_jax.semantics.building import (
    OF_GENERATION,
    STARTING_NOISE,
    check_provenance,
    checkpoint_at_hand,
    checkpoint_directory,
    compute_dtype,
    generate_images,
)
from semanticfl_jax.semantics.student.bundled import bundled_student
from semanticfl_jax.semantics.student.images import StudentImages, split_held_out
from semanticfl_jax.semantics.student.network import Student
from semanticfl_jax.semantics.student.teacher import (
    CLIP,
    ENCODER,
    ENCODER_RESOLUTION,
    diffusion_features,
    encoder_features,
    whitened,
)
from semanticfl_jax.semantics.student.training import train
from semanticfl_jax.types import Say

#: (student, images uint8 [n, H, W, 3], labels int [n], rows that were trained on, rows that were
#: not) -> figures.
Probe = Callable[[Student, np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, Any]]

_OF_DIFFUSION = ("checkpoint", "timestep", "resolution")
_OF_TRAINING = ("steps", "batch_size", "learning_rate", "seed")


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
        **{name: own[name] for name in _OF_TRAINING},
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


def obtain_student(
    clients: ClientSide,
    images: StudentImages | None,
    directory: Path,
    say: Say = print,
    probe: Probe | None = None,
) -> Student:
    """Return the student that a configuration asks for: read where a file has it, else made.

    It is a bundled one, or that of `guidance.student.file`, neither of which is ever written; else
    it is looked for in `guidance.student.directory`, under a name made of its provenance; else in
    the run's directory.

    Args:
      clients: their side of it.
      images: that it is distilled on; None: to be generated, or not at hand (with a file).
      directory: of the run.
      say: takes lines for the user.
      probe: measures a student that was just made.

    Raises:
      SemanticFLError: if the file holds a student made of other inputs; the message names them.
    """
    config, settings = clients.config, clients.config.guidance.student
    if settings.is_bundled:
        path = bundled_student(config.model, settings.width)
        say(f"student from {path}")
        return Student.load(path)
    checkpoint = _checkpoint(config)
    provenance = expected_provenance(clients, images, checkpoint)
    path = _path(config, directory, provenance)
    if settings.file is not None or path.exists():
        student = Student.load(path)
        unknown = {"dtype"} if config.guidance.dtype == "auto" else set()
        if checkpoint is None:
            unknown |= {"checkpoint_sha256"}
        elif student.provenance.get("checkpoint_sha256") == provenance["checkpoint_sha256"]:
            unknown |= {"checkpoint"}  # the same files, wherever they lie
        if images is None:
            unknown |= {"image_count", "images_sha256"}
        if settings.file is not None:
            # It brings its own normalisation, may have been made for other classes, and how it was
            # trained is not what it means.
            unknown |= {"mean", "std", "class_names", "augmentation", "image_shape", *_OF_TRAINING}
            if settings.images == BUNDLED:
                unknown |= {"images", "image_count", "images_sha256", "max_images", "prompt"}
                unknown |= {*OF_GENERATION, *STARTING_NOISE}
                unknown |= {"model"} if settings.model is None and settings.init is None else set()
        check_provenance(student.provenance, provenance, path, unknown, what="the student")
        say(f"student from {path}")
        return student
    student = make_student(clients, images, checkpoint, provenance, path, say, probe)
    student.save(path)
    write_json(path.with_suffix(".json"), student.about)
    discard(_parts(path, provenance))
    figures = ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in student.about["measured"].items()
    )
    say(f"wrote {path}: {figures}")
    return student


def make_student(
    clients: ClientSide,
    images: StudentImages | None,
    checkpoint: Path | None,
    provenance: dict[str, Any],
    path: Path,
    say: Say,
    probe: Probe | None,
) -> Student:
    """Distil a student (method: see `teacher` and `training`).

    What is finished lies beside `path` until the student is, so that an interrupted call resumes.
    """
    config, settings = clients.config, clients.config.guidance.student
    parts = _parts(path, provenance)
    if images is None:
        images = _generated(clients, checkpoint, path, parts)
    made_of = f"{len(images.images):,} {images.source} images"
    say(f"distilling a student of {settings.teacher} from {made_of}, in {settings.steps} steps")
    pixels = images.resized(*clients.image_shape[:2])
    rows, held = split_held_out(len(pixels), settings.seed)
    targets, found = _targets(config, checkpoint, images, rows, parts)
    outputs = settings.dim if targets.ndim == 2 else int(targets.max()) + 1
    variables = train(
        network_in_training(clients, outputs, jax.default_backend()),
        pixels[rows],
        targets[rows],
        settings,
        augmentation=config.augmentation,
        mean=clients.mean,
        std=clients.std,
        workdir=parts / "training",
    )
    about = {
        "version": __version__,
        "model": to_dict(clients.model),
        "image_shape": list(clients.image_shape),
        "mean": list(clients.mean),
        "std": list(clients.std),
        "dim": outputs,
        "provenance": provenance,
        "measured": found,
    }
    student = Student(variables, about)
    student.require_finite()
    seen = student.outputs(pixels[held])
    if targets.ndim == 2:
        centred = targets[held] - targets[held].mean(axis=0, keepdims=True)
        rest = float(np.mean(np.square(seen - targets[held])) / np.mean(np.square(centred)))
        found["held_out_variance_explained"] = 1 - rest
    else:
        found["held_out_accuracy"] = float(np.mean(seen.argmax(axis=1) == targets[held]))
    found["held_out_images"] = len(held)
    if probe is not None and images.labels is not None:
        found |= probe(student, pixels, images.labels, rows, held)
    return student


def network_in_training(clients: ClientSide, outputs: int, platform: str) -> Network:
    """Return the student's network as it is trained on devices of a platform, "cpu" or another.

    Weights stay in float32; with bfloat16, activations are not.
    """
    precision = "float32" if platform == "cpu" else "bfloat16"
    runtime = RuntimeConfig(conv=choose_lowering(platform))
    config = ExperimentConfig(model=clients.model, precision=precision, runtime=runtime)
    return make_model(config, outputs, clients.image_shape)


def _targets(
    config: ExperimentConfig,
    checkpoint: Path | None,
    images: StudentImages,
    rows: np.ndarray,
    parts: Path,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what is learned, float32 [n, dim] or labels int32 [n], and figures of it."""
    guidance, settings = config.guidance, config.guidance.student
    if settings.teacher == "labels":
        if images.labels is None:
            raise ConfigError(
                "guidance.student.control=labels needs one class an image, and those of "
                f"guidance.student.images={settings.images} have none"
            )
        return images.labels.astype(np.int32), {}
    if settings.teacher == "encoder":
        features = encoder_features(images.images, parts)
    else:
        assert checkpoint is not None
        dtype = compute_dtype(guidance)
        features = diffusion_features(guidance, checkpoint, dtype, images.images, parts)
    targets, explained = whitened(features, rows, settings.dim)
    return targets, {"maps": list(features), "teacher_variance_kept": explained}


def _generated(
    clients: ClientSide, checkpoint: Path | None, path: Path, parts: Path
) -> StudentImages:
    from semanticfl_jax.diffusion.stable_diffusion import load

    guidance, seed = clients.config.guidance, clients.config.guidance.student.seed
    assert checkpoint is not None
    model = load(checkpoint, dtype=compute_dtype(guidance))
    drawn = generate_images(guidance, model, clients.class_names, seed, path, parts)
    return StudentImages("generated", drawn.images, drawn.labels).limited(
        guidance.student.max_images, seed
    )


def _checkpoint(config: ExperimentConfig) -> Path | None:
    """Return the diffusion model's directory; None where none is needed, or for a file not here."""
    if not uses_diffusion(config):
        return None
    guidance = config.guidance
    given = guidance.student.file is not None
    return checkpoint_at_hand(guidance) if given else checkpoint_directory(guidance)


def _path(config: ExperimentConfig, directory: Path, provenance: dict[str, Any]) -> Path:
    settings = config.guidance.student
    if settings.file is not None:
        return Path(settings.file)
    if settings.directory is not None:
        name = f"student-{settings.teacher}-{_digest(provenance)}.safetensors"
        return Path(settings.directory) / name
    return directory / "student.safetensors"


def _parts(path: Path, provenance: dict[str, Any]) -> Path:
    return path.with_name(f"{path.stem}.parts-{_digest(provenance)}")


def _digest(provenance: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]


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
