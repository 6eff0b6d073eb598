"""The student of a run: on which images it is distilled, and how well it does afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.config.student import BUNDLED
from semanticfl_jax.data.federation import Federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.diffusion.settings import image_size
from semanticfl_jax.probing.classifiers import Split, assess, check_counts
from semanticfl_jax.registry import DATASETS
from semanticfl_jax.semantics.building import checkpoint_directory
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.semantics.student.building import obtain_student
from semanticfl_jax.semantics.student.checks import check_fits
from semanticfl_jax.semantics.student.clients import ClientSide, uses_diffusion
from semanticfl_jax.semantics.student.images import StudentImages, read_images
from semanticfl_jax.types import Say

#: Images that a probe is fitted to, at most; and the side of a directory's images where no
#: diffusion model says which.
_PROBED, _SIDE = 5000, 64


def server_student(
    federation: Federation, config: ExperimentConfig, directory: Path, say: Say
) -> Student:
    """Return the student of a run: read where it exists, else distilled.

    Nothing of the clients enters it but what the server is told anyway: the size of their images
    and how they are normalised.

    Args:
      federation: its public split is what the server may look at.
      config: of the run.
      directory: of the run.
      say: takes lines for the user.
    """
    clients = client_side(config, federation.dataset)
    images = _images(config, federation)
    student = obtain_student(clients, images, directory, say, probe_held_out)
    check_fits(student, clients)
    return student


def client_side(config: ExperimentConfig, dataset: ImageDataset) -> ClientSide:
    """Return what the student of a run is made for."""
    return ClientSide(config, dataset.image_shape, dataset.mean, dataset.std, dataset.class_names)


def _images(config: ExperimentConfig, federation: Federation) -> StudentImages | None:
    settings = config.guidance.student
    if settings.images == BUNDLED:
        return None
    if settings.file is not None and settings.images != "public" and settings.data_dir is None:
        _refuse_clients_data_set(settings.dataset, federation)
        return None  # not at hand
    side = config.guidance.resolution or _SIDE
    if settings.images == "directory" and uses_diffusion(config):
        side = config.guidance.resolution or image_size(checkpoint_directory(config.guidance))
    images = read_images(settings, federation.clean, federation.public, side)
    if images is not None and settings.images != "public":
        _refuse_clients_images(images, federation)
    return images


def _refuse_clients_data_set(name: str | None, federation: Federation) -> None:
    """Raise `ConfigError` if a student's file is of the data set that clients have, by its name."""
    own_files = name is not None and "image_size" in DATASETS[name].uses  # any place's
    if name == federation.dataset.name and not own_files:
        raise ConfigError(
            f"guidance.student.images=dataset:{name}: the student of guidance.student.file was "
            "distilled on the clients' own data set, whose images do not leave them; use one of "
            "other images"
        )


def _refuse_clients_images(images: StudentImages, federation: Federation) -> None:
    """Raise `ConfigError` if a client has any of the images that a student is distilled on.

    Whatever the data sets are called: the images of one are often in another, and `cifar10` comes
    in several forms. Images that were resized are not recognised.
    """
    everyone = federation.clean.train_images
    if images.images.shape[1:] != everyone.shape[1:]:
        return
    held = np.setdiff1d(np.arange(len(everyone)), federation.public)
    clients = {_digest(everyone[index]) for index in held}
    shared = sum(_digest(image) in clients for image in images.images)
    if shared:
        raise ConfigError(
            f"guidance.student.images={images.source}: clients have {shared:,} of these "
            f"{len(images.images):,} images, and theirs do not leave them; use public, the "
            "server's part of the data set, or another one"
        )


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


def require_model_by_name(config: ExperimentConfig) -> None:
    """Raise `ConfigError` where the clients' network is given and the student's is not named."""
    student = config.guidance.student
    if student.model is None and student.file is None and student.images != BUNDLED:
        raise ConfigError(
            "guidance.student.model must name a network when the clients' is given as a module: "
            "the student needs one with other outputs"
        )


def probe_held_out(
    student: Student, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, held: np.ndarray
) -> dict[str, Any]:
    """Return the accuracy of simple classifiers on what a student sees in images it did not learn.

    Args:
      student: just made.
      images: uint8 [n, H, W, 3].
      labels: int [n].
      rows: of the images that it learned, to which classifiers are fitted.
      held: of the others.
    """
    # Of all classes, also where images come class by class.
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _PROBED)).astype(int)]
    known = np.isin(labels[held], labels[rows])
    held = held[known]
    classes, counts = np.unique(labels[rows], return_counts=True)
    if len(held) == 0 or len(classes) < 2 or counts.min() < 5:
        return {}
    seen = student.outputs(images[np.concatenate([rows, held])])
    return _figures("held_out", seen, Split(labels[rows], labels[held], 0))


def probe_on(student: Student, dataset: ImageDataset, train: int, test: int) -> dict[str, Any]:
    """Return the accuracy of simple classifiers on what a student sees in a data set's images.

    A measurement for researchers: in a run, nobody may look at the clients' images so.

    Args:
      student: any.
      dataset: with one class an image.
      train: training images to fit classifiers to, at most.
      test: test images.
    """
    rows, others = _probed(dataset, train, test)
    images = np.concatenate([dataset.train_images[rows], dataset.test_images[others]])
    split = Split(dataset.train_labels[rows], dataset.test_labels[others], 0)
    return _figures(dataset.name, student.outputs(images), split)


def check_probe(dataset: ImageDataset, train: int, test: int) -> None:
    """Raise `ConfigError` unless `probe_on` can fit classifiers; arguments as there."""
    rows, others = _probed(dataset, train, test)
    split = Split(dataset.train_labels[rows], dataset.test_labels[others], 0)
    check_counts(split, "probe_images")


def _probed(dataset: ImageDataset, train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted rows of training and of test images."""
    rng = np.random.default_rng([0, 0x9120BE])  # the images of launch.probe_features, seed 0
    rows = np.sort(rng.permutation(len(dataset.train_labels))[:train])
    return rows, np.sort(rng.permutation(len(dataset.test_labels))[:test])


def _figures(name: str, seen: np.ndarray, split: Split) -> dict[str, Any]:
    found = assess(seen, split)
    return {f"{name}_linear": found["linear"], f"{name}_knn": found["knn"]}
