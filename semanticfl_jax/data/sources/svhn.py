"""SVHN: cropped digits of house numbers, two MATLAB files (Netzer et al., 2011).

train_32x32.mat, test_32x32.mat:  X uint8 [32, 32, 3, n],  y [n, 1] from 1 to 10; 10 is digit 0
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.contents import missing_file
from semanticfl_jax.data.sources.dataset import ImageDataset
from semanticfl_jax.data.sources.idx import directory_of
from semanticfl_jax.errors import SemanticFLError


def svhn(settings: object, context: DatasetContext) -> ImageDataset:
    """Return SVHN; its extra images are not used."""
    del settings
    directory = directory_of(context, "svhn")
    images, labels = _read(directory, "train")
    test_images, test_labels = _read(directory, "test")
    names = tuple(f"digit {digit}" for digit in range(10))
    return ImageDataset.from_arrays(images, labels, test_images, test_labels, names, name="svhn")


def _read(directory: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import loadmat

    path = directory / f"{split}_32x32.mat"
    if not path.is_file():
        raise missing_file("data_dir", directory, path.name)
    try:
        found = loadmat(path)
    except Exception as error:  # SciPy's reader raises what it likes of a damaged file
        raise SemanticFLError(f"{path} is no whole MATLAB file: {error}") from None
    if "X" not in found or "y" not in found:
        raise SemanticFLError(f"{path} must have X and y")
    images, labels = np.moveaxis(found["X"], -1, 0), found["y"].reshape(-1)
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) != len(labels):
        raise SemanticFLError(
            f"{path} must have X uint8 [32, 32, 3, n] and y [n, 1], has X {images.dtype} "
            f"{list(found['X'].shape)} and y {list(found['y'].shape)}"
        )
    if not np.isin(labels, range(11)).all():
        raise SemanticFLError(f"{path} must have y from 1 to 10, or from 0 to 9")
    return np.ascontiguousarray(images), labels.astype(np.int32) % 10
