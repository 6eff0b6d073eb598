"""Anybody's images: a folder a class.

    DIR/train/CLASS/...   and DIR/test/CLASS/... or DIR/val/CLASS/...
    DIR/CLASS/...         without such splits: a fifth of every class becomes the test split

Images may lie in folders of their own below the class's. A file `metadata.csv` in a split's folder
(Hugging Face's imagefolder convention) says more about every image: its column `file_name` is
relative to that folder, all others become columns of the data set, by which a natural partition
can form clients: by hospital, writer, camera.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.file_tree import Directory
from semanticfl_jax.data.sources.image_files import Listing, is_image, load_images
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path

METADATA = "metadata.csv"
#: Share of every class that is the test split where the folders have none, and the seed: our
#: choice.
TEST_SHARE, SEED = 0.2, 0


def image_folder(settings: object, context: DatasetContext) -> ImageDataset:
    """Return a folder of images, normalised by train's mean and deviation (our choice)."""
    del settings
    config = context.config
    arrays = load_image_folder(
        config.data_dir, image_size=config.image_size, unreadable=config.unreadable
    )
    return named("image_folder", arrays)


def load_image_folder(
    data_dir: str | os.PathLike | None, *, image_size: int = 0, unreadable: str = "refuse"
) -> dict[str, Any]:
    """Arrays of a folder of images, as `load_images` gives them.

    Args:
      data_dir: the folder.
      image_size: side in pixels to which images are brought (central square, bicubic); 0: as they
        are, all of one size.
      unreadable: "refuse" or "skip" files that are missing (named in metadata.csv), have no row in
        it, or cannot be decoded.

    Raises:
      FileNotFoundError: if there is no such folder.
      ValueError: for folders in no such layout, or as `load_images` raises it.
    """
    if not data_dir:
        raise SemanticFLError("data_dir must be a folder of images when dataset=image_folder")
    path = local_path(data_dir, "data_dir")
    if not path.is_dir():
        raise MissingFileError(f"data_dir: no directory {path}")
    tree = Directory(path)
    return load_images(
        "image_folder", tree, lambda: list_files(tree), side=image_size, unreadable=unreadable
    )


def list_files(tree: Directory) -> tuple[list[str], dict[str, Listing]]:
    """Class names, and the files of the splits "train" and "test".

    Labels follow the folders' names in alphabetical order; a class is called like its folder, with
    spaces for `_` and `-`.

    Raises:
      ValueError: if a split or a class is missing, or metadata.csv is no such table.
    """
    folders = _folders(tree, "")
    if "train" not in folders:
        classes = folders
        train, test = _divide(_listing(tree, "", classes))
    else:
        held_out = [name for name in ("test", "val") if name in folders]
        if not held_out:
            raise SemanticFLError(f"{tree.path} has a train folder but neither test nor val")
        for other in held_out[1:]:
            print(
                f"{tree.path}: {other} is not used, {held_out[0]} is the test split",
                file=sys.stderr,
            )
        splits = [f"{name}/" for name in ("train", held_out[0])]
        classes = sorted({name for split in splits for name in _folders(tree, split)})
        train, test = (_listing(tree, split, classes) for split in splits)
    if len(classes) < 2:
        raise SemanticFLError(
            f"{tree.path} must hold a folder a class, at least two; found {classes}"
        )
    names = [name.replace("_", " ").replace("-", " ").strip() for name in classes]
    if len(set(names)) < len(names):
        raise SemanticFLError(
            f"{tree.path}: classes must differ by more than '_' and '-': {classes}"
        )
    return names, {"train": train, "test": test}


def _folders(tree: Directory, prefix: str) -> list[str]:
    """Names of the folders in a folder; those without any image count, too."""
    return sorted(p.name for p in (tree.path / prefix).iterdir() if p.is_dir() and p.name[0] != ".")


def _listing(tree: Directory, prefix: str, classes: Sequence[str]) -> Listing:
    """The images of one split, whose folder's name is `prefix`."""
    label = {name: i for i, name in enumerate(classes)}
    found, problems = {}, {}
    for name in tree.names:
        if name.startswith(prefix) and is_image(name):
            folder, slash, _ = name.removeprefix(prefix).partition("/")
            if slash:
                found[name] = label[folder]
            else:
                problems[name] = "in no class's folder"
    missing = [classes[i] for i in sorted(set(label.values()) - set(found.values()))]
    if missing:
        raise SemanticFLError(f"{tree.path / prefix} has no images for {', '.join(missing[:5])}")
    if f"{prefix}{METADATA}" not in tree.names:
        return Listing(list(found), list(found.values()), problems=problems)
    rows = _metadata(tree, prefix)
    problems |= {name: "missing" for name in rows if name not in found}
    problems |= {name: f"no row in {METADATA}" for name in found if name not in rows}
    kept = [name for name in found if name in rows]
    columns = {key: [rows[name][key] for name in kept] for key in next(iter(rows.values()))}
    return Listing(kept, [found[name] for name in kept], columns, problems)


def _metadata(tree: Directory, prefix: str) -> dict[str, dict[str, str]]:
    """The other columns of metadata.csv by file."""
    where = tree.path / prefix / METADATA
    with tree.open(prefix + METADATA) as file:
        reader = csv.DictReader(io.StringIO(file.read().decode("utf-8-sig")), strict=True)
        rows = list(reader)
    if not rows or "file_name" not in rows[0]:
        raise SemanticFLError(f"{where} must be a table with a column file_name and a row an image")
    table = {}
    for number, row in enumerate(rows, start=2):
        name = prefix + row.pop("file_name").removeprefix("./")
        if None in row or None in row.values():
            raise SemanticFLError(
                f"{where}: row {number} has another number of fields than the first"
            )
        if name in table:
            raise SemanticFLError(f"{where}: {name} has two rows")
        table[name] = row
    return table


def _divide(listing: Listing) -> tuple[Listing, Listing]:
    """Training and test images, the same share of every class."""
    labels = np.asarray(listing.labels)
    rng = np.random.default_rng(SEED)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: max(1, round(TEST_SHARE * len(members)))]] = True

    def part(chosen: np.ndarray, problems: dict[str, str]) -> Listing:
        places = np.flatnonzero(chosen).tolist()
        columns = {k: [values[i] for i in places] for k, values in listing.columns.items()}
        return Listing([listing.names[i] for i in places], labels[places], columns, problems)

    return part(~is_test, dict(listing.problems)), part(is_test, {})
