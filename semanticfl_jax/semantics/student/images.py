"""The images that a student is distilled on, which are never the clients'.

public        the server's split of the training set
directory     all images below a folder
dataset:NAME  the training images of another data set
generated     drawn by the diffusion model itself (`building.generate_images`)
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import numpy as np

from semanticfl_jax.config import StudentConfig
from semanticfl_jax.data.sources import ImageDataset, load_dataset
from semanticfl_jax.data.sources.file_tree import Directory
from semanticfl_jax.data.sources.image_files import decode, describe_problems
from semanticfl_jax.data.sources.image_formats import describe_unread, is_image
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.randomness import HostStream, host_generator

_DRAWN, _HELD_OUT = 0, 1
#: Images that are not trained on, at most, and as a share of all.
_HELD_OUT_MOST, _HELD_OUT_SHARE = 2000, 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class StudentImages:
    """Images on the host.

    Attributes:
      source: as `StudentConfig.images` has it.
      images: uint8 [n, H, W, 3], as large as the teacher may see them.
      labels: int32 [n]; None: they have none.
    """

    source: str
    images: np.ndarray
    labels: np.ndarray | None

    @property
    def sha256(self) -> str:
        """Hash of pixels and labels."""
        content = hashlib.sha256(f"{self.images.shape}".encode())
        for start in range(0, len(self.images), 4096):
            content.update(np.ascontiguousarray(self.images[start : start + 4096]))
        if self.labels is not None:
            content.update(np.asarray(self.labels, np.int32).tobytes())
        return content.hexdigest()

    def limited(self, count: int, seed: int) -> StudentImages:
        """Return `count` of them, drawn at random; all, for 0 or if there are no more."""
        rows = _drawn(len(self.images), count, seed)
        if rows is None:
            return self
        labels = None if self.labels is None else self.labels[rows]
        return StudentImages(self.source, self.images[rows], labels)

    def resized(self, height: int, width: int) -> np.ndarray:
        """Return the images at another size, uint8 [n, height, width, 3].

        Smaller ones are averages of areas, larger ones bicubic.
        """
        from PIL import Image

        here = self.images.shape[1:3]
        if here == (height, width):
            return np.asarray(self.images)
        shrinks = height <= here[0] and width <= here[1]
        method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
        result = np.empty((len(self.images), height, width, 3), np.uint8)
        for row, image in enumerate(self.images):
            result[row] = np.asarray(Image.fromarray(image).resize((width, height), method))
        return result


def _drawn(total: int, count: int, seed: int) -> np.ndarray | None:
    """Return sorted rows of `count` images drawn at random; None: all."""
    if not 0 < count < total:
        return None
    rng = host_generator(seed, HostStream.DISTILLATION, _DRAWN)
    return np.sort(rng.permutation(total)[:count])


def split_held_out(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted rows to train on, and those on which the student is measured."""
    rng = host_generator(seed, HostStream.DISTILLATION, _HELD_OUT)
    order = rng.permutation(count)
    held = held_out_count(count)
    return np.sort(order[held:]), np.sort(order[:held])


def held_out_count(count: int) -> int:
    """Return how many of `count` images are not trained on."""
    return min(_HELD_OUT_MOST, max(1, int(_HELD_OUT_SHARE * count)))


def read_images(
    config: StudentConfig, dataset: ImageDataset, public: np.ndarray, side: int
) -> StudentImages | None:
    """Return the images that a student is distilled on; None where they are generated.

    Args:
      config: which.
      dataset: the clients', of which the public split is.
      public: int [p], the training samples that the server holds.
      side: to which images of a directory are brought, in pixels.

    Raises:
      SemanticFLError: if there are none, or the data set has other inputs.
    """
    if config.images == "generated":
        return None
    if config.images == "public":
        labels = dataset.train_labels[public] if dataset.has_classes else None
        found = StudentImages("public", dataset.train_images[public], labels)
    elif config.dataset is not None:
        other = load_dataset(config.dataset, config.data_dir)
        if not other.has_images:
            raise SemanticFLError(
                f"guidance.student.images={config.images} must name a data set of images, which "
                "alone a teacher sees"
            )
        labels = other.train_labels if other.has_classes else None
        found = StudentImages(config.images, other.train_images, labels)
    else:
        found = _of_directory(Path(config.data_dir or ""), side, config.max_images, config.seed)
    if len(found.images) < 2:
        raise SemanticFLError(
            f"guidance.student.images={config.images} has {len(found.images)} images, and a "
            "student needs at least 2"
        )
    return found.limited(config.max_images, config.seed)


def _of_directory(directory: Path, side: int, count: int, seed: int) -> StudentImages:
    """Return images below a folder, as `StudentImages.limited` draws them.

    Those directly in one folder each share a label. Only what is drawn is decoded: a folder may
    hold far more than is asked for.
    """
    if not directory.is_dir():
        raise MissingFileError(f"guidance.student.data_dir: no directory {directory}")
    tree = Directory(directory)
    files = (*tree.names, *tree.problems)
    unread = describe_unread(name for name in files if not is_image(name))
    if unread:
        print(f"{directory}: not read are {unread}", file=sys.stderr)
    names = [name for name in tree.names if is_image(name)]
    folders = [name.rpartition("/")[0] for name in names]
    labels = np.unique(folders, return_inverse=True)[1].astype(np.int32)
    rows = _drawn(len(names), count, seed)
    if rows is not None:
        names, labels = [names[row] for row in rows], labels[rows]
    broken = {name: why for name, why in tree.problems.items() if is_image(name)}
    pixels = np.empty((len(names), side, side, 3), np.uint8)
    for row, image in enumerate(decode(tree.open, names, side)):
        if isinstance(image, str):
            broken[names[row]] = image
        else:
            pixels[row] = image
    if broken:
        raise SemanticFLError(
            f"guidance.student.data_dir: {len(broken)} files in {directory} are no whole images: "
            f"{describe_problems(broken)}"
        )
    return StudentImages("directory", pixels, labels if names else None)
