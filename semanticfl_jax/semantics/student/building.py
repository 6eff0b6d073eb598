"""From images to a student: the diffusion model's one run over them, and the student's training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from semanticfl_jax import __version__
from semanticfl_jax.config import (
    ConfigError,
    ExperimentConfig,
    RuntimeConfig,
    to_dict,
)
from semanticfl_jax.config.student import BUNDLED
from semanticfl_jax.diffusion.batches import discard
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import write_json
from semanticfl_jax.models import Network, make_model
from semanticfl_jax.models.client_conv import choose_lowering
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
from semanticfl_jax.semantics.student.checks import check_before_making
from semanticfl_jax.semantics.student.clients import (
    OF_TRAINING,
    ClientSide,
    expected_provenance,
    uses_diffusion,
)
from semanticfl_jax.semantics.student.images import StudentImages, split_held_out
from semanticfl_jax.semantics.student.network import Student
from semanticfl_jax.semantics.student.teacher import (
    diffusion_features,
    encoder_features,
    whitened,
)
from semanticfl_jax.semantics.student.training import train
from semanticfl_jax.types import Say

#: (student, images uint8 [n, H, W, 3], labels int [n], rows that were trained on, rows that were
#: not) -> figures.
Probe = Callable[[Student, np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, Any]]

#: Of a student's provenance, what decides the teacher's features of given images, and the images
#: that the diffusion model draws.
_OF_FEATURES = (
    "teacher",
    "checkpoint_sha256",
    "maps",
    "timestep",
    "resolution",
    "dtype",
    "encoder",
    "encoder_resolution",
    "seed",
)
_OF_DRAWING = (
    *OF_GENERATION,
    *STARTING_NOISE,
    "prompt",
    "class_names",
    "checkpoint_sha256",
    "dtype",
    "seed",
)


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
            unknown |= {"mean", "std", "class_names", "augmentation", "image_shape", *OF_TRAINING}
            if settings.images == BUNDLED:
                unknown |= {"images", "image_count", "images_sha256", "max_images", "prompt"}
                unknown |= {*OF_GENERATION, *STARTING_NOISE}
                unknown |= {"model"} if settings.model is None and settings.init is None else set()
        check_provenance(student.provenance, provenance, path, unknown, what="the student")
        say(f"student from {path}")
        return student
    check_before_making(clients, images, checkpoint)
    student, parts = make_student(clients, images, checkpoint, provenance, path, say, probe)
    student.save(path)
    write_json(path.with_suffix(".json"), student.about)
    for each in parts | set(path.parent.glob(f"{path.stem}.parts-*")):
        discard(each)
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
) -> tuple[Student, set[Path]]:
    """Distil a student (method: see `teacher` and `training`).

    What is finished lies beside `path` until the student is, so that an interrupted call resumes.
    Features and generated images go under names of what decides them alone: in a run's directory,
    one with other settings finds them after a training that came to nothing.

    Returns:
      the student, and the folders of what is finished.
    """
    config, settings = clients.config, clients.config.guidance.student
    # In a shared directory its name tells all settings apart: two processes that make different
    # students must not share, and then delete, what they have half made.
    beside = path.with_suffix("")
    in_training = _parts(beside, "training", provenance)
    used = {in_training}
    if images is None:
        assert checkpoint is not None
        drawn = _parts(beside, "images", {name: provenance[name] for name in _OF_DRAWING})
        used.add(drawn)
        images = _generated(clients, checkpoint, path, drawn)
    of_features = {name: provenance[name] for name in _OF_FEATURES if name in provenance}
    parts = _parts(beside, "features", {"images_sha256": images.sha256} | of_features)
    used.add(parts)
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
        workdir=in_training,
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
    try:
        student.require_finite()
    except SemanticFLError:
        discard(in_training)  # nothing to resume
        raise
    seen = student.outputs(pixels[held])
    if targets.ndim == 2:
        centred = targets[held] - targets[held].mean(axis=0, keepdims=True)
        variance = float(np.mean(np.square(centred)))
        if variance > 0:  # not so of a single image
            rest = float(np.mean(np.square(seen - targets[held]))) / variance
            found["held_out_variance_explained"] = 1 - rest
    else:
        found["held_out_accuracy"] = float(np.mean(seen.argmax(axis=1) == targets[held]))
    found["held_out_images"] = len(held)
    if probe is not None and images.labels is not None:
        found |= probe(student, pixels, images.labels, rows, held)
    return student, used


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
        if len(np.unique(images.labels[rows])) < 2:
            raise ConfigError(
                "guidance.student.control=labels needs images of two classes at least, and those "
                f"of guidance.student.images={settings.images} that are trained on have one"
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


def _generated(clients: ClientSide, checkpoint: Path, path: Path, parts: Path) -> StudentImages:
    from semanticfl_jax.diffusion.stable_diffusion import load

    guidance, seed = clients.config.guidance, clients.config.guidance.student.seed
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


def _parts(beside: Path, kind: str, decided_by: dict[str, Any]) -> Path:
    return beside.with_name(f"{beside.name}.parts-{kind}-{_digest(decided_by)}")


def _digest(provenance: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:12]
