"""What the student's teachers say of an image: their features, whitened.

The diffusion model is given the empty prompt: nobody tells it what is in an image. Its maps are
pooled, each channel is standardised, all together are projected to their leading principal axes and
scaled to deviation one, so that every direction of what it sees counts the same, and cut off at
`CLIP` deviations. [ours]
"""

from __future__ import annotations

from collections.abc import Mapping
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
    joined = np.concatenate([np.asarray(x, np.float32) for x in features.values()], axis=1)
    fitted = joined[rows]
    mean, std = fitted.mean(axis=0), fitted.std(axis=0)
    joined = (joined - mean[None]) / np.where(std > 1e-6, std, 1.0)[None]
    fitted = joined[rows]
    covariance = fitted.T.astype(np.float64) @ fitted / len(fitted)
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
    return np.clip(joined @ basis, -CLIP, CLIP), float(variances[:dim].sum() / variances.sum())
