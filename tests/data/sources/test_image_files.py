"""Decoding: against Pillow, one file at a time."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image, ImageOps

from semanticfl_jax.data.sources.image_files import decode
from semanticfl_jax.data.sources.image_formats import (
    describe_unread,
    image_suffixes,
    is_image,
    read_image,
)


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


KINDS = {
    "ppm": "x.ppm",
    "pgm": "x.pgm",
    "bmp": "x.bmp",
    "tga": "x.tga",
    "tiff": "x.TIF",
    "gif": "x.gif",
    "jpeg2000": "x.jp2",
    "pcx": "x.pcx",
    "webp": "x.webp",
    "avif": "x.avif",
    "jpeg": "x.jfif",
    "png": "x.apng",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_pillow_opens_is_read(kind):
    image = Image.fromarray(noise((8, 8, 3)))
    image = image.convert("L") if kind == "pgm" else image
    content = encoded(image, "ppm" if kind == "pgm" else kind)
    assert is_image(KINDS[kind])
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(read_image(io.BytesIO(content)), expected)


def test_what_it_only_recognises_is_counted_by_suffix():
    others = ["a.HEIC", "b.heic", "c.pdf", "d.mpg", "e.h5", "f.eps", "g.jxl", "noise", "x.tar.gz"]
    assert not any(map(is_image, [name for name in others if "hei" not in name.lower()]))
    found = describe_unread([*others, *(f"{i}.x{i}" for i in range(4))])
    assert found.startswith("2 .heic, 1 .pdf, 1 .mpg, 1 .h5, 1 .eps, 1 .jxl, 1 without suffix")
    assert found.endswith("1 .gz, 4 of other kinds (pip install pillow-heif pillow-jxl-plugin)")
    assert describe_unread([]) == ""


def test_heic_is_read_where_its_plug_in_is_installed(monkeypatch):
    """A plug-in as pillow-heif is one: it registers a format when it is asked to."""
    from PIL import BmpImagePlugin

    class Heif(BmpImagePlugin.BmpImageFile):
        format = "HEIF"

    def register_heif_opener():
        Image.register_open("HEIF", Heif, lambda head: head.startswith(b"BM"))
        Image.register_extension("HEIF", ".heic")

    monkeypatch.setattr(Image, "EXTENSION", dict(Image.EXTENSION))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = register_heif_opener
    try:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.setitem(sys.modules, "pi_heif", None)
        image_suffixes.cache_clear()
        assert not is_image("x.heic")
        monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
        image_suffixes.cache_clear()
        assert is_image("x.HEIC")
    finally:
        monkeypatch.undo()
        image_suffixes.cache_clear()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(orientation):
    """EXIF 2.3, tag 0x0112: which side of the stored picture is up, and which is left."""
    pixels = noise((4, 6, 3))
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(pixels),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png", exif=exif)
    np.testing.assert_array_equal(read_image(content), turned[orientation])


def test_a_damaged_orientation_does_not_cost_the_image():
    content = io.BytesIO()
    Image.fromarray(noise((4, 6, 3))).save(content, "png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(content), noise((4, 6, 3)))
