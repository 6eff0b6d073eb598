"""Anybody's images: a folder a class, in a directory or an archive.

    DIR/train/CLASS/...   and DIR/test/CLASS/... or DIR/val/CLASS/...
    DIR/CLASS/...         without such splits: a fifth of every class becomes the test split

Splits may be called otherwise (`split_folders.py`). Images may lie in folders of their own below
the class's. A table in a split's folder, or beside the splits (`metadata.py`), says more about
every image: its columns become columns of the data set, by which a natural partition can form
clients: by hospital, writer, camera.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.class_folders import (
    class_names,
    class_of,
    classes_in,
    without_images,
)
from semanticfl_jax.data.sources.contents import describe_contents
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.file_tree import Archive, Directory, open_tree
from semanticfl_jax.data.sources.image_files import Listing, load_images
from semanticfl_jax.data.sources.image_formats import describe_unread, is_image
from semanticfl_jax.data.sources.metadata import Row, find_table, other_tables, read_table
from semanticfl_jax.data.sources.split_folders import find_splits
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.paths import local_path

#: Share of every class that is the test split where the folders have none, and the seed: our
#: choice.
TEST_SHARE, SEED = 0.2, 0


def image_folder(settings: object, context: DatasetContext) -> ImageDataset:
    """Return a folder of images, normalised by train's mean and deviation (our choice)."""
    del settings
    config = context.config
    arrays = load_image_folder(
        config.data_dir,
        image_size=config.image_size,
        unreadable=config.unreadable,
        column=config.partition.column,
    )
    return named("image_folder", arrays)


def load_image_folder(
    data_dir: str | os.PathLike | None,
    *,
    image_size: int = 0,
    unreadable: str = "refuse",
    column: str | None = None,
) -> dict[str, Any]:
    """Return arrays of a folder of images, as `load_images` gives them.

    Args:
      data_dir: the folder, or a .zip or .tar file of it.
      image_size: side in pixels to which images are brought (central square, bicubic); 0: as they
        are, all of one size.
      unreadable: "refuse" or "skip" files that are missing (named in the table, or links to
        nothing), have no row in it, or cannot be decoded.
      column: of the table, that must be there and have a value for every training image.

    Raises:
      MissingFileError: if there is no such folder.
      SemanticFLError: for folders in no such layout, or as `load_images` raises it.
    """
    if not data_dir:
        raise SemanticFLError("data_dir must be a folder of images when dataset=image_folder")
    tree = open_tree(local_path(data_dir, "data_dir"))
    return load_images(
        "image_folder",
        tree,
        lambda: list_files(tree),
        side=image_size,
        unreadable=unreadable,
        column=column,
    )


def list_files(tree: Directory | Archive) -> tuple[list[str], dict[str, Listing]]:
    """Return class names, and the files of the splits "train" and "test".

    Labels follow the folders' names in alphabetical order; a class is called like its folder, with
    spaces for `_` and `-`.

    Raises:
      SemanticFLError: if a split or a class is missing.
    """
    splits = find_splits(tree)
    prefixes = [splits.train, *([] if splits.test is None else [splits.test])]
    of_splits = [classes_in(tree.path / prefix, tree.folders(prefix)) for prefix in prefixes]
    classes = sorted(set().union(*of_splits))
    if len(classes) < 2:
        raise SemanticFLError(
            f"{tree.path} must hold a folder a class, at least two; {describe_contents(tree.path)}"
        )
    names = class_names(tree.path, classes)
    notes = tuple(f"{tree.path}: {note}" for note in splits.notes)
    try:
        train = _listing(tree, splits.train, classes, notes)
        if splits.test is None:
            train, test = _divide(train)
        else:
            test = _listing(tree, splits.test, classes)
    except SemanticFLError:
        # Which folders were chosen may be the reason.
        print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        raise
    return names, {"train": train, "test": test}


def _listing(
    tree: Directory | Archive, prefix: str, classes: Sequence[str], notes: Sequence[str] = ()
) -> Listing:
    """Return the images of one split, whose folder's name is `prefix`."""
    label = {name: i for i, name in enumerate(classes)}
    problems = {name: why for name, why in tree.problems.items() if name.startswith(prefix)}
    found, unread = {}, []
    for name in tree.names:
        if not name.startswith(prefix):
            continue
        folder, slash, _ = name.removeprefix(prefix).partition("/")
        if slash and is_image(name):
            found[name] = label[class_of(folder)]
        elif slash:
            unread.append(name)
        elif is_image(name):
            problems[name] = "in no class's folder"
    missing = [classes[i] for i in sorted(set(label.values()) - set(found.values()))]
    if missing:
        other = describe_unread(unread)
        raise SemanticFLError(
            without_images(tree.path / prefix, missing, (classes[i] for i in found.values()))
            + (f"; not read are {other}" if other else "")
            + (f"; {describe_contents(tree.path / prefix)}" if not found else "")
        )
    listing = Listing(list(found), list(found.values()), {}, problems, unread, notes)
    return _with_columns(tree, prefix, listing)


def _with_columns(tree: Directory | Archive, prefix: str, listing: Listing) -> Listing:
    """Return the same images with the columns of their table, if they have one.

    A metadata.csv in the split's own folder is to list all its images. Of other tables the rows
    that are missing matter only if a column is used: they may be there for other purposes.
    """
    table, root = find_table(tree, prefix), prefix
    if table is None and prefix:
        root = prefix[: prefix[:-1].rfind("/") + 1]
        table = find_table(tree, root)
    if table is None:
        there = ", ".join(dict.fromkeys([*other_tables(tree, prefix), *other_tables(tree, root)]))
        reason = f"{tree.path / prefix} has no metadata.csv, .tsv, .jsonl or .parquet"
        reason += f"; not read are {there}" if there else ""
        return dataclasses.replace(listing, no_columns=reason)
    try:
        rows, note = read_table(tree, table)
    except SemanticFLError as error:
        warning = f"{error}; its columns are left out"
        return dataclasses.replace(listing, no_columns=str(error), notes=(*listing.notes, warning))
    by_file = _by_file(rows, listing, root)
    problems, kept = dict(listing.problems), list(range(len(listing.names)))
    if root == prefix and table.lower().endswith(".csv"):
        known = {*listing.names, *problems}
        problems |= {name: "missing" for name in by_file if name not in known}
        reason = f"no row in {table.removeprefix(root)}"
        problems |= {name: reason for name in listing.names if name not in by_file}
        kept = [i for i in kept if listing.names[i] in by_file]
    nothing: Row = {}
    chosen = [by_file.get(listing.names[i], nothing) for i in kept]
    columns = {key: [row.get(key) for row in chosen] for key in next(iter(rows.values()))}
    return dataclasses.replace(
        listing,
        names=[listing.names[i] for i in kept],
        labels=[listing.labels[i] for i in kept],
        columns=columns,
        problems=problems,
        notes=(*listing.notes, note) if note else listing.notes,
    )


def _by_file(rows: Mapping[str, Row], listing: Listing, root: str) -> dict[str, Row]:
    """Return rows by the names that the tree has; a table may also name files from the tree's top.

    Letters with accents may be composed in one name and not in the other, as on Macs.
    """
    known = {unicodedata.normalize("NFC", name): name for name in listing.names}
    found = {}
    for name, row in rows.items():
        usual = f"{root}{name}"
        places = (known.get(unicodedata.normalize("NFC", place)) for place in (usual, name))
        found[next(filter(None, places), usual)] = row
    return found


def _divide(listing: Listing) -> tuple[Listing, Listing]:
    """Return training and test images, the same share of every class."""
    labels = np.asarray(listing.labels)
    rng = np.random.default_rng(SEED)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: max(1, round(TEST_SHARE * len(members)))]] = True

    def part(chosen: np.ndarray) -> dict[str, Any]:
        places = np.flatnonzero(chosen).tolist()
        columns = {k: [values[i] for i in places] for k, values in listing.columns.items()}
        names = [listing.names[i] for i in places]
        return {"names": names, "labels": labels[places], "columns": columns}

    return dataclasses.replace(listing, **part(~is_test)), Listing(**part(is_test))
