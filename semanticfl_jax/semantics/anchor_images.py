"""The images that visual anchors are made of: where they come from decides what privacy means.

public      a split of the training set that the server holds; no client has these images
directory   a folder of class-named folders, anywhere
oracle      the clients' own training images, as in the FedDifRC family's simulation: not private
generated   drawn by the diffusion model itself (`diffusion/sampler.py`), no real image at all
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: What Pillow reads and people have.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")

NOT_PRIVATE = (
    "not private: the anchors are features of the clients' own images "
    "(guidance.anchor_source=oracle); for comparison only"
)


@dataclasses.dataclass(frozen=True, eq=False)
class AnchorImages:
    """Images with labels, on the host.

    Attributes:
      source: "public", "directory", "oracle" or "generated".
      images: uint8 [n, H, W, 3].
      labels: int32 [n].
      samples: int [n], each image's place in the training set, and `total`, that set's size: for
        "oracle" alone, where features are kept image by image.
      total: see `samples`.
    """

    source: str
    images: np.ndarray
    labels: np.ndarray
    samples: np.ndarray | None = None
    total: int = 0

    @property
    def sha256(self) -> str:
        """Hash of pixels and labels, and of the places of "oracle" images."""
        content = hashlib.sha256(np.ascontiguousarray(self.images))
        content.update(np.asarray(self.labels, np.int32).tobytes())
        if self.samples is not None:
            content.update(np.asarray(self.samples, np.int64).tobytes())
        return content.hexdigest()


def directory_images(directory: str | Path, class_names: Sequence[str], side: int) -> AnchorImages:
    """Reads every image in the folders named after the classes.

    A folder belongs to a class if the names agree but for case, and for `_`, `-` and space being
    one. Images are cut to their central square and resized (bicubic).

    Args:
      directory: holds a folder a class; other folders are not read.
      class_names: K names, in label order.
      side: of the images returned, in pixels.

    Raises:
      FileNotFoundError: if the directory does not exist.
      ValueError: if classes have no folder or no image, share one, or images cannot be read; the
        message names them.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    directory = Path(directory)
    if not directory.is_dir():
        raise FileNotFoundError(f"guidance.anchor_dir: no directory {directory}")
    folders: dict[str, list[Path]] = {}
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        folders.setdefault(_plain(folder.name), []).append(folder)
    found = {
        name: [
            path
            for folder in folders.get(_plain(name), [])
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in _SUFFIXES
        ]
        for name in class_names
    }
    missing = [name for name, paths in found.items() if not paths]
    if missing:
        there = ", ".join(sorted(folders)) or "none"
        raise ValueError(
            f"guidance.anchor_dir: {directory} has no images for {', '.join(missing)}; a class "
            f"needs a folder of its name with {', '.join(_SUFFIXES)} files. Folders there: {there}"
        )
    images, labels, broken = [], [], []
    for label, paths in enumerate(found.values()):
        for path in paths:
            try:
                with Image.open(path) as image:
                    square = ImageOps.fit(image.convert("RGB"), (side, side), Image.BICUBIC)
            except (OSError, UnidentifiedImageError):
                broken.append(path.relative_to(directory).as_posix())
                continue
            images.append(np.asarray(square, np.uint8))
            labels.append(label)
    if broken:
        some = ", ".join(broken[:5]) + (", ..." if len(broken) > 5 else "")
        raise ValueError(
            f"guidance.anchor_dir: {len(broken)} files in {directory} are no whole images: {some}"
        )
    return AnchorImages("directory", np.stack(images), np.array(labels, np.int32))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
