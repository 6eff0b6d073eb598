"""What a network learns from: images, or arrays of any shape that reach it as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: Types in which a data set holds its inputs: images, and the two of inputs as they are.
KEPT = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.int32))

# The network gets whole numbers as float32, as all else: its signature, its initial weights and
# what counts its operations need no second type. Up to here float32 has every whole number.
_EXACT = 2**24
# Inputs that are checked at a time, so that memory does not grow with their number.
_BLOCK = 4096


def as_inputs(name: str, values: Any) -> np.ndarray:
    """Return inputs as a data set holds them.

    Args:
      name: of the argument, for messages.
      values: at least one input: images uint8 [n, H, W, 3], or of one channel, [n, H, W] or
        [n, H, W, 1], which is repeated; or floats or whole numbers of another type, [n, ...].

    Returns:
      Images uint8 [n, H, W, 3]; of others float32 or int32 [n, ...].

    Raises:
      SemanticFLError: for arrays of another form, floats that are not finite in float32, and whole
        numbers beyond 2^24.
    """
    values = np.asarray(values)
    if values.dtype == np.uint8:
        found, fits = _with_channels(values), values.ndim in (3, 4) and values.size > 0
        fits = fits and found.shape[-1] == 3
    else:
        found = as_kept(name, values) if values.ndim >= 2 else values
        fits = found.dtype in KEPT and found.ndim >= 2 and found.size > 0
    if values.ndim and not len(values):
        raise SemanticFLError(
            f"{name} is empty, {values.dtype} {list(values.shape)}: it must have one input at least"
        )
    if not fits:
        raise SemanticFLError(
            f"{name} must be uint8 [n, H, W, 3], from 0 to 255, or float32 or int32 [n, ...], "
            f"which the network gets as they are; got {values.dtype} {list(values.shape)}"
        )
    return found


def as_kept(name: str, values: np.ndarray) -> np.ndarray:
    """Return floats as float32 and whole numbers as int32; others as they are.

    Args:
      name: of the argument, for messages.
      values: [n, ...], of any type but uint8.

    Raises:
      SemanticFLError: as `as_inputs`.
    """
    if values.dtype.kind == "f" or values.dtype.name == "bfloat16":  # which is none of NumPy's
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        for start in range(0, len(values), _BLOCK):
            finite = np.isfinite(values[start : start + _BLOCK])
            if not finite.all():
                row = start + int(np.argwhere(~finite)[0][0])
                raise SemanticFLError(f"{name} must be finite in float32, {name}[{row}] is not")
    elif values.dtype.kind in "iu":
        if values.size and (values.min() < -_EXACT or values.max() > _EXACT):
            raise SemanticFLError(
                f"{name} must be from -2^24 to 2^24 where it has whole numbers, since the network "
                f"gets them as float32; got {values.min()} to {values.max()}"
            )
        values = values.astype(np.int32, copy=False)
    return values


def _with_channels(images: np.ndarray) -> np.ndarray:
    """Return images [n, H, W] and [n, H, W, 1] with three equal channels, others as they are."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    return images
