"""Which files are images, and the one reader of them: Pillow, with the plug-ins that are installed.

An image is turned upright by its EXIF orientation; of an animation or a file of several pages the
first picture is taken.
"""

from __future__ import annotations

import collections
import functools
import importlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import GIT_LFS_POINTER, git_lfs_pointer

#: Plug-ins that add formats to Pillow: module, and the function that registers them, if one does.
_PLUGINS = (
    ("pillow_heif", "register_heif_opener"),
    ("pi_heif", "register_heif_opener"),
    ("pillow_avif", None),
    ("pillow_jxl", None),
)
#: What Pillow recognises by name, but reads only with other programs, on one system, or not at all.
_NAMES_ONLY = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
#: Package that brings a format, by suffix.
_BRINGS = {
    ".heic": "pillow-heif",
    ".heif": "pillow-heif",
    ".hif": "pillow-heif",
    ".avif": "pillow-avif-plugin",
    ".jxl": "pillow-jxl-plugin",
}
#: Suffixes named in a message, of those that are not read.
_NAMED = 8


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the endings of names, in lower case, that Pillow opens here; load its plug-ins."""
    from PIL import Image

    Image.init()
    for module, register in _PLUGINS:
        try:
            plugin = importlib.import_module(module)
            if register is not None:
                getattr(plugin, register)()
        except (ImportError, AttributeError):
            continue
    return frozenset(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NAMES_ONLY
    )


def is_image(name: str) -> bool:
    """Return whether a file's name ends like an image's."""
    return _suffix(name) in image_suffixes()


def describe_unread(names: Iterable[str]) -> str:
    """Return how many files are of which suffix, the commonest first, and what would read them.

    Args:
      names: of files that are not read.

    Returns:
      As "80 .heic, 2 .txt (pip install pillow-heif)"; "" for no files.
    """
    counts = collections.Counter(_suffix(name) or "without suffix" for name in names)
    common = counts.most_common()
    text = ", ".join(f"{count} {suffix}" for suffix, count in common[:_NAMED])
    if len(common) > _NAMED:
        text += f", {sum(count for _, count in common[_NAMED:])} of other kinds"
    missing = sorted({_BRINGS[suffix] for suffix in counts if suffix in _BRINGS})
    return text + (f" (pip install {' '.join(missing)})" if missing else "")


def read_image(file: BinaryIO, side: int = 0) -> np.ndarray:
    """Decode one image to uint8 [H, W, 3]; grey becomes RGB, transparency is dropped.

    Args:
      file: open for reading, and seekable.
      side: if not 0, the image is cut to its central square and resized to it (bicubic).

    Raises:
      Exception: of many kinds, if it is no whole image; SemanticFLError for more than 8 bits a
        channel, and for what is no image at all.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    image_suffixes()  # formats of plug-ins
    try:
        opened = Image.open(file)
    except UnidentifiedImageError:
        # Pillow's own words name an object in memory.
        file.seek(0)
        begin = file.read(len(GIT_LFS_POINTER))
        raise SemanticFLError(git_lfs_pointer(begin) or "no image") from None
    with opened as image:
        if image.mode[0] in "IF":
            # Pillow's conversion would cut values off at 255.
            raise SemanticFLError("more than 8 bits a channel")
        image.load()
        rgb = _upright(image).convert("RGB")
    if side:
        rgb = ImageOps.fit(rgb, (side, side), Image.Resampling.BICUBIC)
    return np.asarray(rgb, np.uint8)


def _upright(image):
    """Return the image as its EXIF orientation says; as it is where that is damaged."""
    from PIL import ExifTags, ImageOps

    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # Pillow's readers raise what they like
        return image


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
