"""TinyImageNet-200: 200 classes of ImageNet at 64x64, 500 training and 50 validation images each.

Read as it comes from http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked or not, whole or
cut down to fewer classes and images. Its test images have no labels: the validation images are the
test split, as usual.

    wnids.txt                             the classes, as WordNet ids
    words.txt                             their names: id, tab, synonyms
    train/WNID/images/WNID_0.JPEG ...     and train/WNID/WNID_boxes.txt, which names every one
    val/images/val_0.JPEG ...             and val/val_annotations.txt, which has their classes

Many a copy is sorted anew, for readers of class folders: val/WNID/val_0.JPEG or
val/WNID/images/val_0.JPEG, with or without the text files. That is read, too, as are parquet files
with the ids as class names.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.contents import describe_contents, walk
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.file_tree import Archive, Directory, open_tree, read_text
from semanticfl_jax.data.sources.image_files import Listing, load_images
from semanticfl_jax.data.sources.image_formats import is_image
from semanticfl_jax.data.sources.parquet import ParquetFiles, find_parquet
from semanticfl_jax.data.sources.prepared import data_root, find_preparation, load_prepared
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path

ROOT, MARKER, WORDS = "tiny-imagenet-200", "wnids.txt", "words.txt"
#: How a class is called where wnids.txt is missing.
_WNID = re.compile(r"n\d{8}")
BUILDER = "semanticfl_jax.data.sources.tiny_imagenet_builder"


def tiny_imagenet(settings: object, context: DatasetContext) -> ImageDataset:
    """Return TinyImageNet-200, with the normalisation of the FedDifRC family (ICCV 2025)."""
    del settings
    config = context.config
    arrays = load_tiny_imagenet(config.data_dir, unreadable=config.unreadable)
    return named("tiny_imagenet", arrays, ((0.5,) * 3, (0.5,) * 3))


def load_tiny_imagenet(
    data_dir: str | os.PathLike | None, *, unreadable: str = "refuse"
) -> dict[str, Any]:
    """Return arrays of TinyImageNet, as `load_images` and `load_prepared` give them.

    Args:
      data_dir: a directory in the original layout, sorted anew or not, one that holds it, or one of
        its folders; a .zip or .tar file of it, which is not unpacked; parquet files; or else TFDS's
        data directory, where the data set is downloaded and prepared if it is not there yet (which
        needs TensorFlow).
      unreadable: "refuse" or "skip" missing and damaged files of the original layout.

    Raises:
      SemanticFLError: for files in another layout, or as `load_images` raises it.
      MissingFileError: if there is nothing to read and it cannot be prepared.
    """
    root = data_root(data_dir)
    tree = find_files(data_dir) if data_dir else None
    if tree is not None:
        return load_images("tiny_imagenet", tree, lambda: list_files(tree), unreadable=unreadable)
    if find_preparation(root, "tiny_imagenet") is None:
        rows = find_parquet(root, "tiny_imagenet")
        if rows is not None:
            return load_images(
                "tiny_imagenet", rows, lambda: _list_rows(rows), unreadable=unreadable
            )
        if data_dir and (root / "train").is_dir():
            raise SemanticFLError(
                f"{root} has a train folder but no {MARKER}, and no folders called by WordNet ids "
                f"in train: not TinyImageNet's layout; {describe_contents(root)}"
            )
    try:
        return load_prepared("tiny_imagenet", data_dir, builder=BUILDER)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{error}, or at {ROOT}.zip or what it holds; in {root}, {describe_contents(root)}"
        ) from None


def find_files(data_dir: str | os.PathLike) -> Directory | Archive | None:
    """Return the files in the original layout; None for what may be TFDS's data directory.

    A directory may be one or two levels above them, or below.
    """
    path = local_path(data_dir, "data_dir")
    if path.is_file():
        return open_tree(path)
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"):
        raise MissingFileError(f"data_dir: no file {path}")
    for above in path.resolve().parents[:2]:
        inside = path.resolve().relative_to(above).parts[0]
        if inside in ("train", "val", "test") and _is_layout(above):
            path = above
    for root in (path, path / ROOT):
        if _is_layout(root):
            return Directory(root)
    for found in walk(path, depth=1):
        if found.is_dir() and _is_layout(found):
            return Directory(found)
        if found.name.lower() in (f"{ROOT}.zip", f"{ROOT}.tar", f"{ROOT}.tar.gz"):
            return Archive(found)
    return None


def _is_layout(root: Path) -> bool:
    if (root / MARKER).is_file():
        return True
    train = root / "train"
    return train.is_dir() and any(_WNID.fullmatch(path.name) for path in train.iterdir())


def list_files(tree: Directory | Archive) -> tuple[list[str], dict[str, Listing]]:
    """Return class names, and the files of the splits "train" and "test".

    The classes are those of wnids.txt, whose number is not checked, or else the folders of train
    that are called by WordNet ids; labels follow the order of the ids, as those of most readers
    do. Every class must have images in both splits.

    Raises:
      SemanticFLError: for another layout, or classes without images or name.
    """
    marker = min((n for n in tree.names if f"/{n}".endswith(f"/{MARKER}")), key=len, default=None)
    if marker is None:
        root = _root_of_class_folders(tree)
        wnids = [name for name in tree.folders(f"{root}train/") if _WNID.fullmatch(name)]
    else:
        root = marker.removesuffix(MARKER)
        wnids = sorted({line.strip() for line in read_text(tree, marker).splitlines()} - {""})
    names = {name.removeprefix(root) for name in tree.names if name.startswith(root)}

    def lines(name: str) -> list[str]:
        """Return the lines of a file, none if it is not there."""
        return read_text(tree, root + name).splitlines() if name in names else []

    broken = {
        name.removeprefix(root): why for name, why in tree.problems.items() if name.startswith(root)
    }
    notes, called = _names(tree, wnids, lines(WORDS), marker is not None)
    train = _train(names, wnids, lines, broken)
    test = _validation(names, wnids, lines("val/val_annotations.txt"), broken)
    for split, listing in (("train", train), ("val", test)):
        empty = [wnids[label] for label in set(range(len(wnids))) - set(listing.labels)]
        if empty:
            some = ", ".join(sorted(empty)[:5]) + (", ..." if len(empty) > 5 else "")
            raise SemanticFLError(
                f"{tree.path}: {len(empty)} of the {len(wnids)} classes in {MARKER} have no images "
                f"in {split}: {some}"
            )
    listings = {
        split: Listing(
            [root + name for name in listing.names],
            listing.labels,
            problems={root + name: why for name, why in listing.problems.items()},
            notes=notes if split == "train" else (),
        )
        for split, listing in (("train", train), ("test", test))
    }
    return called, listings


def _root_of_class_folders(tree: Directory | Archive) -> str:
    """Return the prefix of train and val, where there is no wnids.txt."""
    train = re.compile(r"(.*/)?train/n\d{8}/.*")
    roots = {match[1] or "" for match in map(train.fullmatch, tree.names) if match}
    if not roots:
        raise SemanticFLError(
            f"{tree.path} holds no {MARKER}, and no folders called by WordNet ids in train: not "
            "TinyImageNet's layout"
        )
    return min(roots, key=len)


def _names(
    tree: Directory | Archive, wnids: Sequence[str], lines: Sequence[str], required: bool
) -> tuple[Sequence[str], list[str]]:
    """Return notes, and names of classes: of words.txt, or the ids where a sorted copy has none."""
    if lines or required:
        if not lines:
            raise SemanticFLError(f"{tree.path} holds no {WORDS}: not TinyImageNet's layout")
        return (), class_names(wnids, dict(line.split("\t", 1) for line in lines if "\t" in line))
    note = f"{tree.path}: no {WORDS}; classes are called by their WordNet ids, as in prompts"
    return (note,), list(wnids)


def _list_rows(rows: ParquetFiles) -> tuple[list[str], dict[str, Listing]]:
    """Return class names and rows of parquet files, with labels in the order of the ids."""
    listings = rows.listings()
    if not rows.class_names:
        count = 1 + max(max(listing.labels, default=0) for listing in listings.values())
        return [f"class {number}" for number in range(count)], listings
    wnids = sorted(rows.class_names)
    label = [wnids.index(wnid) for wnid in rows.class_names]
    words = next((p for p in (rows.path / WORDS, rows.path.parent / WORDS) if p.is_file()), None)
    tree = Directory(rows.path if words is None else words.parent)
    notes, called = _names(tree, wnids, read_text(tree, WORDS).splitlines() if words else [], False)
    return called, {
        split: Listing(
            of.names,
            [label[number] for number in of.labels],
            problems=of.problems,
            notes=notes if split == "train" else (),
        )
        for split, of in listings.items()
    }


def _train(
    names: set[str],
    wnids: Sequence[str],
    lines: Callable[[str], list[str]],
    broken: Mapping[str, str],
) -> Listing:
    label = {wnid: i for i, wnid in enumerate(wnids)}
    found = collections.defaultdict(set)
    for name in names:
        if name.startswith("train/") and is_image(name):
            found[name.split("/")[1]].add(name)
    strange = sorted(set(found) - set(wnids))
    if strange:
        raise SemanticFLError(f"train has folders that {MARKER} does not: {', '.join(strange[:5])}")
    problems = {name: why for name, why in broken.items() if name.startswith("train/")}
    for wnid in wnids:
        boxes = f"train/{wnid}/{wnid}_boxes.txt"
        there = {name.rsplit("/", 1)[-1] for name in found[wnid] | set(problems)}
        for line in lines(boxes):
            name = line.split()[0] if line.strip() else ""
            if name and name not in there:
                problems[f"train/{wnid}/images/{name}"] = "missing"
    files = [(name, label[wnid]) for wnid in wnids for name in sorted(found[wnid])]
    return Listing([name for name, _ in files], [i for _, i in files], problems=problems)


def _validation(
    names: set[str],
    wnids: Sequence[str],
    annotations: Sequence[str],
    broken: Mapping[str, str],
) -> Listing:
    """List images in folders of classes, or else of val_annotations.txt, in its order."""
    label = {wnid: i for i, wnid in enumerate(wnids)}
    images = sorted(name for name in names if name.startswith("val/") and is_image(name))
    sorted_anew = {name: label[f] for name in images if (f := name.split("/")[1]) in label}
    elsewhere = {name.rsplit("/", 1)[-1] for name in sorted_anew}
    named = {}
    for line in annotations:
        if line.strip():
            name, wnid = [*line.split("\t"), ""][:2]
            if wnid not in label:
                raise SemanticFLError(f"val_annotations.txt: {line!r} names no class of {MARKER}")
            if name not in elsewhere:
                named[f"val/images/{name}"] = label[wnid]
    problems = {name: why for name, why in broken.items() if name.startswith("val/")}
    there = set(images)
    problems |= {n: "missing" for n in named if n not in there and n not in problems}
    reason = "not in val_annotations.txt" if annotations else "in no class's folder"
    problems |= {n: reason for n in images if n not in named and n not in sorted_anew}
    kept = {name: of for name, of in named.items() if name in there} | sorted_anew
    return Listing(list(kept), list(kept.values()), problems=problems)


def class_names(wnids: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """Return WordNet's first synonym for every class, ready for a prompt.

    Where classes share it, the next synonym that no other has is added, or at last the id.

    Raises:
      SemanticFLError: for ids without words.
    """
    unknown = [wnid for wnid in wnids if wnid not in words]
    if unknown:
        raise SemanticFLError(f"words.txt has no names for {', '.join(unknown[:5])}")
    synonyms = [
        [word.strip().replace("_", " ") for word in words[wnid].split(",")] for wnid in wnids
    ]
    uses = collections.Counter(word for of in synonyms for word in set(of))
    names = []
    for wnid, (first, *others) in zip(wnids, synonyms, strict=True):
        if sum(first == other[0] for other in synonyms) == 1:
            names.append(first)
            continue
        own = [word for word in others if uses[word] == 1]
        names.append(f"{first}, {own[0]}" if own else f"{first} ({wnid})")
    return names
