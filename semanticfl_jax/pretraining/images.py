"""Natural images with class names: the TinyImageNet-200 layout, from a folder or a tar file."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from semanticfl_jax.array_files import kept_npz
from semanticfl_jax.config import ConfigError
from semanticfl_jax.data.sources import packing
from semanticfl_jax.data.sources.file_tree import Directory
from semanticfl_jax.data.sources.image_files import describe_problems
from semanticfl_jax.pretraining import files


class Images(NamedTuple):
    """A split: `pixels` [n, size, size, 3] uint8 and `labels` [n] int32, indices of `wnids`."""

    pixels: np.ndarray
    labels: np.ndarray
    wnids: list[str]


def fingerprint(path: Path) -> str:
    """Tell apart what a folder or a tar file holds, by names, sizes and times, not by its place.

    Raises:
      ConfigError: if there is neither.
    """
    if path.is_dir():
        return Directory(path).fingerprint()
    if path.is_file():
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    raise ConfigError(f"images: {path} is neither a folder nor a tar file")


def load(path: Path, size: int, cache: Path, progress) -> tuple[Images, Images]:
    """Read training and validation split, images resized to `size` pixels (area average).

    Args:
      path: the folder `tiny-imagenet-200`, or a tar file that holds it.
      size: height and width.
      cache: `.npz` kept of the result.
      progress: wraps the iterable over files (as tqdm does).

    Raises:
      ConfigError: if `path` is missing, damaged, or holds no such images.
    """
    key = files.digest([fingerprint(path), str(size)])
    saved = kept_npz(cache, key)
    if saved is None:
        saved = _read(path, size, progress)
        files.write_npz(cache, key=key, **saved)
    wnids = [str(wnid) for wnid in saved["wnids"]]
    return (
        Images(saved["train_pixels"], saved["train_labels"], wnids),
        Images(saved["val_pixels"], saved["val_labels"], wnids),
    )


def _read(path: Path, size: int, progress) -> dict[str, np.ndarray]:
    from PIL import Image

    wnids, annotations, pixels = [], {}, {}
    for name, content in progress(_contents(path)):
        parts = PurePosixPath(name).parts
        if parts[-1] == "wnids.txt":
            with _naming(path, name):
                wnids = content.decode().split()
        elif parts[-1] == "val_annotations.txt":
            with _naming(path, name):
                lines = (line.split("\t") for line in content.decode().splitlines())
                annotations = {line[0]: line[1] for line in lines}
        elif parts[-1].lower().endswith(".jpeg") and {"train", "val"} & set(parts):
            # The nearest folder: one further up may have such a name, too.
            split = next(part for part in reversed(parts) if part in ("train", "val"))
            with _naming(path, name):
                picture = Image.open(io.BytesIO(content)).convert("RGB")
                picture = picture.resize((size, size), Image.Resampling.BOX)
            pixels[split, parts[-1]] = np.asarray(picture)
    index = {wnid: label for label, wnid in enumerate(wnids)}
    result = {"wnids": np.array(wnids)}
    for split in ("train", "val"):
        chosen = {}
        for (owner, name), image in sorted(pixels.items()):
            wnid = name.split("_")[0] if split == "train" else annotations.get(name)
            if owner == split and wnid in index:
                chosen[name] = (image, index[wnid])
        if not chosen:
            raise ConfigError(f"images: {path} holds no {split} images in TinyImageNet's layout")
        result[f"{split}_pixels"] = np.stack([image for image, _ in chosen.values()])
        result[f"{split}_labels"] = np.array([label for _, label in chosen.values()], np.int32)
    return result


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of every file under a folder, named as seen from it, or in a tar file."""
    if path.is_dir():
        tree = Directory(path)
        if tree.problems:
            raise ConfigError(f"images: {path}: cannot use {describe_problems(tree.problems)}")
        for name in tree.names:
            yield name, (path / name).read_bytes()
    elif tarfile.is_tarfile(path):
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    reader = tar.extractfile(member) if member.isfile() else None
                    if reader is not None:
                        yield member.name, reader.read()
        except (tarfile.TarError, *packing.DAMAGE) as error:
            raise ConfigError(f"images: {path} is no whole tar file: {error}") from None
    else:
        raise ConfigError(f"images: {path} is neither a folder nor a tar file")


@contextlib.contextmanager
def _naming(path: Path, name: str) -> Iterator[None]:
    """Name the file in whatever reading it raises."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise what they like
        reason = str(error) or type(error).__name__
        raise ConfigError(f"images: {path}: {name} is damaged: {reason}") from None


def to_input(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 pixels [n, h, w, 3] as float32 in [-1, 1]."""
    return pixels.astype(np.float32) / 127.5 - 1


class Batches:
    """Batches of rows in an order that depends on (seed, epoch) alone, whole batches only."""

    def __init__(self, rows: int, batch_size: int, seed: int):
        if rows < batch_size:
            raise ConfigError(f"batch_size must be at most the {rows} images, got {batch_size}")
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.per_epoch = rows // batch_size
        self.epoch = -1

    def __call__(self, step: int) -> np.ndarray:
        """Return row indices [batch_size] of a step."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            self.epoch = epoch
        return self.order[index * self.batch_size :][: self.batch_size]
