"""What the student's teachers say of an image: their features, whitened.

The diffusion model is given the empty prompt: nobody tells it what is in an image. Its maps are
pooled, each channel is standardised, all together are projected to their leading principal axes and
scaled to deviation one, so that every direction of what it sees counts the same, and cut off at
`CLIP` deviations. [ours]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from semanticfl_jax.config import GuidanceConfig
from semanticfl_jax.errors import SemanticFLError

#: Deviations beyond which a target is cut off.
CLIP = 4.0
#: Side at which the encoder sees the images, what it is, and its features of an image.
ENCODER_RESOLUTION = 128
ENCODER = "efficientnet_lite0"
ENCODER_CHANNELS = 1280
#: Rows that are standardised, and columns whose moments are taken, at a time.
_ROWS, _COLUMNS = 4096, 256


def diffusion_features(
    config: GuidanceConfig, checkpoint: Path, dtype: str, images: np.ndarray, parts: Path
) -> dict[str, np.ndarray]:
    """Return pooled maps of uint8 images [n, H, W, 3], {map: float32 [n, c]}.

    Args:
      config: time step, resolution, and the student's maps, seed and control.
      checkpoint: directory of the diffusion model.
      dtype: that it computes in.
      images: of any size.
      parts: directory for finished batches.
    """
    # Here alone: runs with a student that is made must not import the diffusion libraries.
    from semanticfl_jax.diffusion.features import available_maps, extract_features
    from semanticfl_jax.diffusion.random_weights import with_random_weights
    from semanticfl_jax.diffusion.stable_diffusion import load

    student = config.student
    model = load(checkpoint, dtype=dtype)
    states = model.text([""])[0]
    if student.teacher == "random_unet":
        model = with_random_weights(model, ("unet",), student.seed)
    return extract_features(
        model,
        images,
        states,
        np.zeros(len(images), int),
        maps=student.maps or available_maps(model),
        timestep=config.timestep,
        seed=student.seed,
        batch_size=config.diffusion_batch_size or None,
        resolution=config.resolution or None,
        parts=parts / "features",
    )


def encoder_features(images: np.ndarray, parts: Path) -> dict[str, np.ndarray]:
    """Return an image encoder's features of uint8 images [n, H, W, 3], {"encoder": [n, c]}."""
    from semanticfl_jax.pretraining import encoder

    parts.mkdir(parents=True, exist_ok=True)
    found = encoder.cached_features(
        images,
        ENCODER_RESOLUTION,
        parts / "encoder.npz",
        "student",
        load=partial(encoder.load, "guidance.student.control=encoder"),
    )
    return {"encoder": found.astype(np.float32)}


def whitened(
    features: Mapping[str, np.ndarray], rows: np.ndarray, dim: int
) -> tuple[np.ndarray, float]:
    """Return targets of all images, and the share of variance that their axes explain.

    Args:
      features: {map: float32 [n, c]}.
      rows: int [m], images that decide means, deviations and axes.
      dim: leading principal axes that are kept.

    Returns:
      float32 [n, dim], of deviation one over `rows` but for what is cut off; the share, in 0..1.

    Raises:
      SemanticFLError: if there are fewer axes.
    """
    moments = [_moments(x, rows) for x in features.values()]

    def standardised(of: np.ndarray) -> np.ndarray:
        pairs = zip(features.values(), moments, strict=True)
        return np.concatenate([_standardise(x[of], *each) for x, each in pairs], axis=1)

    # By blocks: a copy of all features, standardised, would be as large as they are.
    width = sum(x.shape[1] for x in features.values())
    covariance = np.zeros((width, width))
    for block in _blocks(rows):
        fitted = standardised(block).astype(np.float64)
        covariance += fitted.T @ fitted
    covariance /= len(rows)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    rank = int(np.sum(variances > 1e-9 * variances[0])) if variances[0] > 0 else 0
    if dim > rank:
        raise SemanticFLError(
            f"guidance.student.dim must be at most {rank} here: so many directions have the "
            f"features of {len(rows)} images in {', '.join(features)}; got {dim}"
        )
    # The sign of a principal axis is arbitrary; fix it so that targets are reproducible.
    axes = axes[:, :dim]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(dim)])[None]
    basis = (axes / np.sqrt(variances[:dim])[None]).astype(np.float32)
    count = len(next(iter(features.values())))
    targets = np.empty((count, dim), np.float32)
    for block in _blocks(np.arange(count)):
        targets[block] = np.clip(standardised(block) @ basis, -CLIP, CLIP)
    return targets, float(variances[:dim].sum() / variances.sum())


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _moments(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of each column of some rows, float32 [c]; constant ones have 1."""
    mean, std = np.empty((2, x.shape[1]), np.float32)
    for start in range(0, x.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        some = np.asarray(x[rows, columns], np.float32)
        mean[columns], std[columns] = some.mean(axis=0), some.std(axis=0)
    return mean, np.where(std > 1e-6, std, np.float32(1.0))


def _standardise(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return (np.asarray(x, np.float32) - mean[None]) / std[None]
