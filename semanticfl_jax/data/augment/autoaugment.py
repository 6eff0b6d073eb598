"""AutoAugment: the policy found for CIFAR-10, on device (Cubuk et al., CVPR 2019).

Magnitudes 0..9 are ten equal steps over the ranges of the paper's table of operations. Shear,
translation and rotation take either direction at random; factors run from 0.1 to 1.9, as in the
paper and its code (PyTorch's ports read them as 1 plus or minus a tenth of the magnitude). Solarize
and Posterize grow stronger with their magnitude.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.data.augment.image_operations import Operation, apply_operation, operation

#: Sub-policies: two operations each, with probability and magnitude, if it takes one.
POLICY = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)

#: Values of the operations at magnitude 0 and 9, in `image_operations.operation`'s units.
RANGES = {
    "ShearX": (0.0, 0.3),
    "ShearY": (0.0, 0.3),
    "TranslateX": (0.0, 150 / 331),
    "TranslateY": (0.0, 150 / 331),
    "Rotate": (0.0, 30.0),
    "Posterize": (8, 4),
    "Solarize": (256, 0),
    "Brightness": (0.1, 1.9),
    "Contrast": (0.1, 1.9),
    "Color": (0.1, 1.9),
    "Sharpness": (0.1, 1.9),
}
_EITHER_DIRECTION = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def autoaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """Apply one of the policy's sub-policies, drawn uniformly, to each image.

    Image i's draws depend on (key, i) alone, not on the batch size (needs
    `jax_threefry_partitionable`, JAX's default).

    Args:
      key: a PRNG key.
      images: uint8 `[B, H, W, 3]`, at least 3 pixels high and wide.

    Returns:
      uint8 `[B, H, W, 3]`.
    """
    batch, height, width, _ = images.shape
    policy_key, apply_key, direction_key = jax.random.split(key, 3)
    drawn = jax.random.randint(policy_key, (batch,), 0, len(POLICY))
    reverse = jax.random.bernoulli(direction_key, 0.5, (batch, 2)).astype(jnp.int32)
    probabilities = jnp.asarray([[p for _, p, _ in pair] for pair in POLICY], jnp.float32)
    applied = jax.random.uniform(apply_key, (batch, 2)) < probabilities[drawn]

    table = jax.tree.map(jnp.asarray, _operations(height, width))
    identity = len(table.kind) - 1
    for place in range(2):
        row = (2 * drawn + place) * 2 + reverse[:, place]
        row = jnp.where(applied[:, place], row, identity)
        chosen = jax.tree.map(lambda each, row=row: each[row], table)
        images = jax.vmap(apply_operation)(images, chosen)
    return images


def value(name: str, magnitude: int | None) -> float:
    """Return what a magnitude of 0..9 means for an operation; 0 for one that takes none."""
    if magnitude is None:
        return 0.0
    low, high = RANGES[name]
    scaled = low + (high - low) * magnitude / 9
    return round(scaled) if name == "Posterize" else scaled


@functools.lru_cache(maxsize=8)
def _operations(height: int, width: int) -> Operation:
    """Return the policy's operations in both directions, by sub-policy; identity last.

    NumPy arrays: traced values must not outlive a trace.
    """
    rows = [
        operation(name, sign * value(name, magnitude), height, width)
        for pair in POLICY
        for name, _, magnitude in pair
        for sign in (1, -1 if name in _EITHER_DIRECTION else 1)
    ]
    rows.append(operation("Identity", 0.0, height, width))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
