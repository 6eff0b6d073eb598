"""Decoding: against Pillow, one file at a time."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from semanticfl_jax.data.sources.image_files import decode, read_image


def encoded(image, kind="png"):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_many_files_in_their_order_with_reasons_for_the_bad():
    """More than are decoded at once, by several threads."""
    files = {f"{i}.png": encoded(Image.fromarray(noise((3, 4, 3), i))) for i in range(600)}
    files["70.png"], files["500.png"] = b"text", files["500.png"][:-30]
    found = list(decode(lambda name: io.BytesIO(files[name]), list(files)))
    assert found[70] == "no image" and "truncated" in found[500]
    for i in set(range(len(files))) - {70, 500}:
        np.testing.assert_array_equal(found[i], noise((3, 4, 3), i))


def test_a_file_that_is_gone_is_named_not_raised():
    def missing(name):
        raise FileNotFoundError(f"no {name}")

    assert list(decode(missing, ["a"])) == ["no a"]
    assert list(decode(missing, [])) == []


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    image = Image.fromarray(noise((5, 6, 3))).convert(mode)
    content = encoded(image, "tiff" if mode == "CMYK" else "png")
    np.testing.assert_array_equal(read_image(io.BytesIO(content)), image.convert("RGB"))


def test_deep_pixels_are_refused_not_cut_off():
    deep = Image.fromarray(np.full((4, 4), 3000, np.uint16))
    with pytest.raises(ValueError, match="more than 8 bits"):
        read_image(io.BytesIO(encoded(deep)))


@pytest.mark.parametrize("size", [(40, 20), (21, 60)])
def test_central_square_resized_bicubic(size):
    image = Image.fromarray(noise((size[1], size[0], 3)))
    left, top = (size[0] - min(size)) / 2, (size[1] - min(size)) / 2
    box = (left, top, left + min(size), top + min(size))
    expected = image.resize((8, 8), Image.Resampling.BICUBIC, box=box)
    found = read_image(io.BytesIO(encoded(image)), side=8)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, ImageOps.fit(image, (8, 8), Image.Resampling.BICUBIC))
