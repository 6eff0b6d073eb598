"""CIFAR-10, tested on CIFAR-10-C: how well a model does where images are of another kind.

Hendrycks, Dietterich. "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations". ICLR 2019.

    DIR/KIND.npy uint8 [50000, 32, 32, 3], DIR/labels.npy [50000]: the 10,000 test images five
    times, at severities 1 to 5
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from semanticfl_jax.array_files import read_npy
from semanticfl_jax.config.original_data import CIFAR10CConfig
from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.cifar import cifar10
from semanticfl_jax.data.sources.contents import missing_file
from semanticfl_jax.data.sources.dataset import ImageDataset
from semanticfl_jax.errors import MissingFileError, SemanticFLError

SEVERITIES = 5
_CLASSES, _IMAGE = 10, (32, 32, 3)


def cifar10_c(settings: CIFAR10CConfig, context: DatasetContext) -> ImageDataset:
    """Return CIFAR-10 with the corrupted images of some kinds, one severity, as its test split."""
    images, labels = corrupted_images(settings)
    clean = cifar10(None, context)
    return dataclasses.replace(clean, name="cifar10_c", test_images=images, test_labels=labels)


def corrupted_images(settings: CIFAR10CConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [m, 32, 32, 3] and labels int32 [m], one kind after another.

    Raises:
      SemanticFLError: for files that are missing or do not fit each other.
    """
    directory = None if settings.directory is None else Path(settings.directory)
    if directory is None or not directory.is_dir():
        raise MissingFileError(
            f"dataset_settings.directory must be CIFAR-10-C's directory, got {settings.directory!r}"
            + ("; unpack that file" if directory is not None and directory.is_file() else "")
        )
    labels = _read(directory / "labels.npy")
    whole = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if not whole or not len(labels) or len(labels) % SEVERITIES:
        raise SemanticFLError(
            f"{directory / 'labels.npy'} must be whole numbers, {SEVERITIES} times those of the "
            f"test images, got {labels.dtype} {list(labels.shape)}"
        )
    if not 0 <= labels.min() <= labels.max() < _CLASSES:
        raise SemanticFLError(
            f"{directory / 'labels.npy'} must be from 0 to {_CLASSES - 1}, is from {labels.min()} "
            f"to {labels.max()}"
        )
    each = len(labels) // SEVERITIES
    rows = slice((settings.severity - 1) * each, settings.severity * each)
    images = []
    for kind in settings.corruptions:
        found = _read(directory / f"{kind}.npy")
        if found.shape != (len(labels), *_IMAGE) or found.dtype != np.uint8:
            raise SemanticFLError(
                f"{directory / kind}.npy must be uint8 [{len(labels)}, 32, 32, 3], as labels.npy "
                f"says, got {found.dtype} {list(found.shape)}"
            )
        images.append(np.array(found[rows]))
    own = np.asarray(labels[rows], np.int32)
    return np.concatenate(images), np.tile(own, len(images))


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise missing_file("dataset_settings.directory", path.parent, path.name)
    return read_npy(path, mmap_mode="r")
