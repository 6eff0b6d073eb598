"""Sheets of small images as PNG files, to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticfl_jax import files


def tile(images: np.ndarray, zoom: int = 1) -> np.ndarray:
    """Return one picture uint8 [rows * H * zoom, columns * W * zoom, 3] of a sheet of images.

    Args:
      images: uint8 [rows, columns, H, W, 3].
      zoom: pixels of the picture, along each side, a pixel of an image.
    """
    rows, columns, height, width, channels = images.shape
    picture = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return picture.repeat(zoom, 0).repeat(zoom, 1)


def write(picture: np.ndarray, path: str | Path) -> None:
    """Write a picture uint8 [H, W, 3] as PNG, whole or not at all."""
    from PIL import Image

    files.write(path, lambda file: Image.fromarray(picture).save(file, format="png", optimize=True))
