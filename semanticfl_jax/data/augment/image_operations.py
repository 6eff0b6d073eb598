"""The image operations of AutoAugment on device, each as Pillow computes it, on uint8.

A batch mixes operations, and under vmap a `lax.switch` computes every branch for every image. So
there are no branches: an image passes through three stages that between them do all operations, and
its parameters make the other two the identity.

    move      ShearX, ShearY, TranslateX, TranslateY, Rotate: nearest neighbour under an affine map
    look up   Posterize, Solarize, Invert, Brightness, Contrast, AutoContrast, Equalize: 256 entries
    blend     Color, Sharpness: a mix with the image's own grey, or with the image smoothed

Against Pillow, `move`, Posterize, Solarize, Invert and Equalize are exact; Brightness, Contrast,
Color, Sharpness and AutoContrast, where Pillow truncates floating point numbers, within 1 of 255.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: Value of pixels that come from outside the image (our choice; the paper's code takes the mean).
GREY = 128

#: What an image can undergo; `Operation.kind` is the place in this list.
NAMES = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Posterize",
    "Solarize",
    "Invert",
    "Brightness",
    "Contrast",
    "AutoContrast",
    "Equalize",
    "Color",
    "Sharpness",
)
_KIND = {name: kind for kind, name in enumerate(NAMES)}

# Coordinates count 1/65536 of a pixel, as Pillow's do: whole numbers, equal on every backend.
_FRACTION_BITS = 16


class Operation(NamedTuple):
    """One operation an image, or a table of them; leading axes may be added.

    Attributes:
      kind: int32 `[]`, place in `NAMES`.
      value: float32 `[]`, strength; what it means depends on the kind, see `operation`.
      matrix: int32 `[6]`, (a, b, c, d, e, f) in units of 1/65536: the pixel at column x, row y
        comes from column a x + b y + c, row d x + e y + f.
    """

    kind: jax.Array | np.ndarray
    value: jax.Array | np.ndarray
    matrix: jax.Array | np.ndarray


def operation(name: str, value: float, height: int, width: int) -> Operation:
    """Return an operation on images of this size, as NumPy values.

    Args:
      name: one of `NAMES`.
      value: ShearX, ShearY: slope. TranslateX, TranslateY: share of the side, cut to whole pixels.
        Rotate: degrees counter-clockwise. Posterize: bits kept. Solarize: threshold from which
        pixels are inverted. Brightness, Contrast, Color, Sharpness: factor, 1 changes nothing.
        The others take none.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Raises:
      SemanticFLError: for an unknown name.
    """
    if name not in _KIND:
        raise SemanticFLError(f"operation must be one of {', '.join(NAMES)}, got {name!r}")
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0
    if name == "ShearX":
        b = value
    elif name == "ShearY":
        d = value
    elif name == "TranslateX":
        c = math.trunc(value * width)
    elif name == "TranslateY":
        f = math.trunc(value * height)
    elif name == "Rotate":
        cosine, sine = math.cos(math.radians(value)), math.sin(math.radians(value))
        x, y = width / 2, height / 2
        a, b, c = cosine, -sine, x - cosine * x + sine * y
        d, e, f = sine, cosine, y - sine * x - cosine * y
    # From pixel centres, half a pixel from the corner.
    rows = ((a, b, c + (a + b) / 2), (d, e, f + (d + e) / 2))
    matrix = [math.floor(each * 2**_FRACTION_BITS + 0.5) for row in rows for each in row]
    return Operation(
        np.asarray(_KIND[name], np.int32),
        np.asarray(value, np.float32),
        np.asarray(matrix, np.int32),
    )


def apply_operation(image: jax.Array, chosen: Operation) -> jax.Array:
    """Apply an operation to an image; vmap both for a batch.

    Args:
      image: uint8 `[H, W, 3]`, at least 3 pixels high and wide.
      chosen: made by `operation` for this height and width; may be traced.

    Returns:
      uint8 `[H, W, 3]`.
    """
    image = _move(image, chosen.matrix)
    image = _table(image, chosen).ravel()[_entries(image)]
    grey = jnp.broadcast_to(_luma(image)[..., None], image.shape)
    degenerate = jnp.where(_is(chosen, "Color"), grey, _smooth(image))
    blended = _blend(degenerate, image, chosen.value).astype(jnp.uint8)
    return jnp.where(_is(chosen, "Color") | _is(chosen, "Sharpness"), blended, image)


def _is(chosen: Operation, name: str) -> jax.Array:
    return chosen.kind == _KIND[name]


def _move(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Take each pixel from where the matrix says, grey from outside."""
    height, width, _ = image.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    a, b, c, d, e, f = matrix
    # Shifted right, negative coordinates are rounded down, too.
    column, row = (a * x + b * y + c) >> _FRACTION_BITS, (d * x + e * y + f) >> _FRACTION_BITS
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    moved = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], moved, jnp.uint8(GREY))


def _entries(image: jax.Array) -> jax.Array:
    """Place of each value and channel in a flattened `[256, 3]`; on CPU faster than two indices."""
    return 3 * image.astype(jnp.int32) + jnp.arange(3)[None, None]


def _table(image: jax.Array, chosen: Operation) -> jax.Array:
    """Return the operation's table uint8 `[256, 3]`, from old value and channel to new value."""
    old = jnp.arange(256)[:, None]
    dropped = 8 - chosen.value.astype(jnp.int32)
    pixels = image.shape[0] * image.shape[1]
    mean = _divide(2 * jnp.sum(_luma(image)) + pixels, 2 * pixels)  # rounded to the nearest
    counts = jnp.zeros(3 * 256, jnp.int32).at[_entries(image).ravel()].add(1).reshape(256, 3)
    tables = {
        "Posterize": (old >> dropped) << dropped,
        "Solarize": jnp.where(old < chosen.value, old, 255 - old),
        "Invert": 255 - old,
        "Brightness": _blend(0, old, chosen.value),
        "Contrast": _blend(mean, old, chosen.value),
        "AutoContrast": _autocontrast_table(counts),
        "Equalize": _equalize_table(counts),
    }
    table = jnp.broadcast_to(old, (256, 3))
    for name, new in tables.items():
        table = jnp.where(_is(chosen, name), new, table)
    return table.astype(jnp.uint8)


def _autocontrast_table(counts: jax.Array) -> jax.Array:
    """Stretch each channel's values to 0..255; `counts` int32 `[256, 3]` is its histogram."""
    old = jnp.arange(256)[:, None]
    low = jnp.min(jnp.where(counts > 0, old, 255), axis=0, keepdims=True)
    high = jnp.max(jnp.where(counts > 0, old, 0), axis=0, keepdims=True)
    stretched = _divide(255 * jnp.maximum(old - low, 0), jnp.maximum(high - low, 1))
    return jnp.where(high > low, jnp.minimum(stretched, 255), old)


def _equalize_table(counts: jax.Array) -> jax.Array:
    """Make each channel's values as even as they can be; `counts` is its histogram."""
    old = jnp.arange(256)[:, None]
    highest = jnp.max(jnp.where(counts > 0, old, 0), axis=0, keepdims=True)
    others = jnp.sum(jnp.where(old < highest, counts, 0), axis=0, keepdims=True)
    step = _divide(others, 255)
    below = jnp.cumsum(counts, axis=0) - counts
    even = _divide((step >> 1) + below, jnp.maximum(step, 1))
    return jnp.where(step > 0, jnp.minimum(even, 255), old)


def _luma(image: jax.Array) -> jax.Array:
    """Grey values of ITU-R 601-2, int32 `[H, W]`, in Pillow's fixed-point arithmetic."""
    red, green, blue = (image[..., channel].astype(jnp.int32) for channel in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _smooth(image: jax.Array) -> jax.Array:
    """Filter by 3x3 ones with a 5 in the middle, int32 `[H, W, 3]`; outermost pixels stay."""
    values = image.astype(jnp.int32)
    height, width, _ = image.shape
    total = 4 * values[1:-1, 1:-1]
    for top, left in itertools.product(range(3), range(3)):
        total += values[top : top + height - 2, left : left + width - 2]
    return jax.lax.dynamic_update_slice(values, _divide(2 * total + 13, 26), (1, 1, 0))


def _blend(degenerate: jax.Array | int, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Return `degenerate` at factor 0, `image` at 1, beyond it above; int32, cut to 0..255."""
    start = jnp.asarray(degenerate, jnp.float32)
    mixed = start + factor * (image.astype(jnp.float32) - start)
    return jnp.clip(mixed.astype(jnp.int32), 0, 255)


def _divide(numerator: jax.Array, denominator: jax.Array | int) -> jax.Array:
    """Return the whole-number quotient of numbers not below 0; `//` would spend time on signs."""
    denominator = jnp.asarray(denominator, numerator.dtype)
    return jax.lax.div(*jnp.broadcast_arrays(numerator, denominator))
