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
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from semanticfl_jax.data.sources.file_tree import Directory
from semanticfl_jax.data.sources.image_files import decode, describe_problems
from semanticfl_jax.data.sources.image_formats import describe_unread, is_image
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path

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
    """Read every image in the folders named after the classes.

    A folder belongs to a class if the names agree but for case, and for `_`, `-` and space being
    one. Images are cut to their central square and resized (bicubic).

    Args:
      directory: holds a folder a class; other folders are not read.
      class_names: K names, in label order.
      side: of the images returned, in pixels.

    Raises:
      MissingFileError: if the directory does not exist.
      SemanticFLError: if classes have no folder or no image, share one, or images cannot be read;
        the message names them.
    """
    directory = local_path(directory, "guidance.anchor_dir")
    if not directory.is_dir():
        raise MissingFileError(f"guidance.anchor_dir: no directory {directory}")
    tree = Directory(directory)
    folders: dict[str, list[str]] = {}
    for folder in tree.folders():
        folders.setdefault(_plain(folder), []).append(folder)
    files: dict[str, list[str]] = {}
    for name in (*tree.names, *tree.problems):
        folder, _, rest = name.partition("/")
        if rest and "/" not in rest:
            files.setdefault(folder, []).append(name)
    inside = {
        name: [file for folder in folders.get(_plain(name), []) for file in files.get(folder, [])]
        for name in class_names
    }
    found = {name: [file for file in of if is_image(file)] for name, of in inside.items()}
    unread = describe_unread(file for of in inside.values() for file in of if not is_image(file))
    missing = [name for name, of in found.items() if not of]
    if missing:
        there = ", ".join(sorted(folders)) or "none"
        raise SemanticFLError(
            f"guidance.anchor_dir: {directory} has no images for {', '.join(missing)}; a class "
            f"needs a folder of its name with image files. Folders there: {there}"
            + (f"; not read are {unread}" if unread else "")
        )
    if unread:
        print(f"{directory}: not read are {unread}", file=sys.stderr)
    labelled = {file: label for label, of in enumerate(found.values()) for file in of}
    names = [name for name in labelled if name not in tree.problems]
    images = list(decode(tree.open, names, side))
    broken = {name: tree.problems[name] for name in labelled if name in tree.problems}
    broken |= {name: im for name, im in zip(names, images, strict=True) if isinstance(im, str)}
    if broken:
        raise SemanticFLError(
            f"guidance.anchor_dir: {len(broken)} files in {directory} are no whole images: "
            f"{describe_problems(broken)}"
        )
    return AnchorImages("directory", np.stack(images), np.array([*labelled.values()], np.int32))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().lower()
