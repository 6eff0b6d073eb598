"""FEMNIST as LEAF prepares it: handwritten characters, each with its writer.

Caldas et al. "LEAF: A Benchmark for Federated Settings". arXiv 1812.01097.

    DIR/train/*.json, DIR/test/*.json:
        {"users": [...], "num_samples": [...], "user_data": {user: {"x": [[784 numbers]], "y": []}}}

Pixels are from 0, ink, to 1, paper; labels are the digits, the capital and the small letters. The
writer is the column `writer`: `partition.scheme=natural partition.column=writer` makes each a
client. Images are set into 32x32 pixels of paper (our choice).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.contents import describe_contents
from semanticfl_jax.data.sources.dataset import ImageDataset
from semanticfl_jax.data.sources.idx import directory_of, emnist_classes, padded
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.files import read_json_object

_CLASSES = 62


def femnist(settings: object, context: DatasetContext) -> ImageDataset:
    """Return FEMNIST, split as LEAF split it, by samples or by writers."""
    del settings
    directory = directory_of(context, "femnist")
    train_images, train_labels, writers = _read(directory / "train")
    test_images, test_labels, _ = _read(directory / "test")
    return ImageDataset.from_arrays(
        train_images,
        train_labels,
        test_images,
        test_labels,
        emnist_classes("byclass"),
        name="femnist",
        columns={"writer": writers},
    )


def _read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images uint8 [n, 32, 32], labels int32 [n] and writers str [n] of a split."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise MissingFileError(
            f"data_dir: no .json files in {folder}, where LEAF's splits go; "
            f"{describe_contents(folder.parent)}"
        )
    images, labels, writers = [], [], []
    for path in paths:
        for user, samples in _users(path).items():
            try:
                pixels = np.asarray(samples["x"], np.float32).reshape(-1, 28, 28)
                classes = np.asarray(samples["y"], np.float64)
                if classes.shape != (len(pixels),):
                    raise ValueError(f"{len(pixels)} images and {len(classes)} labels")
            except (KeyError, TypeError, ValueError) as error:
                raise SemanticFLError(
                    f"{path}: {user} must have as many x, of 784 numbers each, as y ({error})"
                ) from None
            for what, fits in (
                ("x from 0 to 1", (pixels >= 0) & (pixels <= 1)),
                (f"y among 0 to {_CLASSES - 1}", np.isin(classes, range(_CLASSES))),
            ):
                if not fits.all():  # nor is NaN
                    raise SemanticFLError(f"{path}: {user} must have {what}")
            images.append(np.rint(255 * pixels).astype(np.uint8))
            labels.append(classes.astype(np.int32))
            writers += [user] * len(classes)
    if not images:
        raise SemanticFLError(f"data_dir: the .json files in {folder} have no users")
    return padded(np.concatenate(images), 255), np.concatenate(labels), np.array(writers, str)


def _users(path: Path) -> dict:
    users = read_json_object(path).get("user_data")
    if not isinstance(users, dict) or not all(isinstance(each, dict) for each in users.values()):
        raise SemanticFLError(f"{path} is no file of LEAF's: it has no user_data by user")
    return users
