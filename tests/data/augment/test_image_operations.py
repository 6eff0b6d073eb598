"""Each operation beside Pillow's, on noise, on smooth pictures and on degenerate ones."""

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from semanticfl_jax.data.augment import image_operations
from semanticfl_jax.data.augment.image_operations import Operation, apply_operation, operation

GREY = (128, 128, 128)
SIGNED = (-0.3, -0.2, -0.1, 0.0, 0.05, 0.15, 0.3)
FACTORS = (0.0, 0.1, 0.37, 0.82, 1.0, 1.36, 1.9)
VALUES = {
    "ShearX": SIGNED,
    "ShearY": SIGNED,
    "TranslateX": (-150 / 331, *SIGNED),
    "TranslateY": (-150 / 331, *SIGNED),
    "Rotate": (-30.0, -20 / 3, 0.0, 1.0, 17.5, 30.0, 90.0),
    "Posterize": (4, 5, 6, 7, 8),
    "Solarize": (0, 28.4, 100, 128, 256),
    "Brightness": FACTORS,
    "Contrast": FACTORS,
    "Color": FACTORS,
    "Sharpness": FACTORS,
}
#: Greatest difference from Pillow, of 255, where it truncates floating point numbers.
TOLERANCE = {"Brightness": 1, "Contrast": 1, "Color": 1, "Sharpness": 1, "AutoContrast": 1}

apply = jax.jit(jax.vmap(apply_operation, (0, None)))


def affine(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=GREY)


PILLOW = {
    "Identity": lambda image, value: image,
    "ShearX": lambda image, value: affine(image, (1, value, 0, 0, 1, 0)),
    "ShearY": lambda image, value: affine(image, (1, 0, 0, value, 1, 0)),
    "TranslateX": lambda image, value: affine(image, (1, 0, int(value * image.width), 0, 1, 0)),
    "TranslateY": lambda image, value: affine(image, (1, 0, 0, 0, 1, int(value * image.height))),
    "Rotate": lambda image, value: image.rotate(value, fillcolor=GREY),
    "Posterize": ImageOps.posterize,
    "Solarize": ImageOps.solarize,
    "Invert": lambda image, value: ImageOps.invert(image),
    "AutoContrast": lambda image, value: ImageOps.autocontrast(image),
    "Equalize": lambda image, value: ImageOps.equalize(image),
    "Brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
    "Contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
    "Color": lambda image, value: ImageEnhance.Color(image).enhance(value),
    "Sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
}


def pictures(height, width):
    """Noise, waves as smooth as photographs, one colour, two colours, a ramp."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    noise = rng.uniform(0, 256, (2, height, width, 3))
    periods, phases = rng.uniform(3, 15, (2, 6, 3)), rng.uniform(0, 6, (2, 6, 3))
    angles = np.stack([y, x])[..., None, None] / periods[:, None, None] + phases[:, None, None]
    waves = 120 + rng.uniform(10, 140, (6, 3)) * np.sin(angles).prod(axis=0)
    waves = waves.transpose(2, 0, 1, 3) + rng.normal(0, 5, (6, height, width, 3))
    one = np.full((height, width, 3), (7, 77, 250))
    two = np.where((y < 3)[..., None], 10, one)
    ramp = np.stack([x * 255 // width, y * 3, x + y], axis=-1)
    images = np.concatenate([noise, waves, np.stack([one, two, ramp])])
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (24, 40)])
@pytest.mark.parametrize("name", image_operations.NAMES)
def test_operation_is_pillows(name, shape):
    images = pictures(*shape)
    for value in VALUES.get(name, (0.0,)):
        ours = np.asarray(apply(images, operation(name, value, *shape)))
        theirs = [np.asarray(PILLOW[name](Image.fromarray(image), value)) for image in images]
        difference = np.abs(ours.astype(int) - np.stack(theirs))
        assert difference.max() <= TOLERANCE.get(name, 0), value
        assert (difference > 0).mean() < 0.01


def test_a_batch_mixes_operations():
    images = pictures(32, 32)
    names = image_operations.NAMES[: len(images)]
    each = [operation(name, 0.3, 32, 32) for name in names]
    table = Operation(*map(np.stack, zip(*each, strict=True)))
    mixed = jax.jit(jax.vmap(apply_operation))(images, table)
    alone = [apply(images, one)[index] for index, one in enumerate(each)]
    np.testing.assert_array_equal(mixed, alone)


def test_unknown_name():
    with pytest.raises(ValueError, match="operation must be one of Identity, ShearX"):
        operation("Skew", 0.3, 32, 32)
