"""TinyImageNet-200: 200 classes of ImageNet at 64x64, 500 training and 50 validation images each.

Read as it comes from http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked or not, whole or
cut down to fewer classes and images. Its test images have no labels: the validation images are the
test split, as usual.

    wnids.txt                             the classes, as WordNet ids
    words.txt                             their names: id, tab, synonyms
    train/WNID/images/WNID_0.JPEG ...     and train/WNID/WNID_boxes.txt, which names every one
    val/images/val_0.JPEG ...             and val/val_annotations.txt, which has their classes
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.file_tree import Archive, Directory, open_tree
from semanticfl_jax.data.sources.image_files import Listing, is_image, load_images
from semanticfl_jax.data.sources.prepared import load_prepared
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.paths import local_path

ROOT, MARKER = "tiny-imagenet-200", "wnids.txt"
BUILDER = "semanticfl_jax.data.sources.tiny_imagenet_builder"


def tiny_imagenet(settings: object, context: DatasetContext) -> ImageDataset:
    """Return TinyImageNet-200, with the normalisation of the FedDifRC family (ICCV 2025)."""
    del settings
    config = context.config
    arrays = load_tiny_imagenet(config.data_dir, unreadable=config.unreadable)
    return named("tiny_imagenet", arrays | {"mean": (0.5,) * 3, "std": (0.5,) * 3})


def load_tiny_imagenet(
    data_dir: str | os.PathLike | None, *, unreadable: str = "refuse"
) -> dict[str, Any]:
    """Arrays of TinyImageNet, as `load_images` and `load_prepared` give them.

    Args:
      data_dir: a directory in the original layout, or one that holds `tiny-imagenet-200/`; a .zip
        or .tar file of it, which is not unpacked; or else TFDS's data directory, where the data set
        is downloaded and prepared if it is not there yet (which needs TensorFlow).
      unreadable: "refuse" or "skip" missing and damaged files of the original layout.

    Raises:
      ValueError: for files in another layout, or as `load_images` raises it.
      FileNotFoundError: if there is nothing to read and it cannot be prepared.
    """
    tree = find_files(data_dir) if data_dir else None
    if tree is None:
        try:
            return load_prepared("tiny_imagenet", data_dir, builder=BUILDER)
        except FileNotFoundError as error:
            raise MissingFileError(f"{error}, or at {ROOT}.zip or what it holds") from None
    return load_images("tiny_imagenet", tree, lambda: list_files(tree), unreadable=unreadable)


def find_files(data_dir: str | os.PathLike) -> Directory | Archive | None:
    """The files in the original layout; None for what may be TFDS's data directory."""
    path = local_path(data_dir, "data_dir")
    if path.is_file():
        return open_tree(path)
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz"):
        raise MissingFileError(f"data_dir: no file {path}")
    for root in (path, path / ROOT):
        if (root / MARKER).is_file():
            return Directory(root)
        if (root / "train").is_dir():
            raise SemanticFLError(
                f"{root} has a train folder but no {MARKER}: not TinyImageNet's layout"
            )
    return None


def list_files(tree: Directory | Archive) -> tuple[list[str], dict[str, Listing]]:
    """Class names, and the files of the splits "train" and "test".

    The classes are those of wnids.txt, whose number is not checked; labels follow the order of the
    WordNet ids, as those of most readers do. Every class must have images in both splits.

    Raises:
      ValueError: for another layout, or classes without images or name.
    """
    marker = min((n for n in tree.names if f"/{n}".endswith(f"/{MARKER}")), key=len, default=None)
    if marker is None:
        raise SemanticFLError(f"{tree.path} holds no {MARKER}: not TinyImageNet's layout")
    root = marker.removesuffix(MARKER)
    names = {name.removeprefix(root) for name in tree.names if name.startswith(root)}

    def lines(name: str) -> list[str]:
        if name not in names:
            raise SemanticFLError(f"{tree.path} holds no {root}{name}: not TinyImageNet's layout")
        with tree.open(root + name) as file:
            return file.read().decode().splitlines()

    wnids = sorted({line.strip() for line in lines(MARKER)} - {""})
    words = dict(line.split("\t", 1) for line in lines("words.txt") if "\t" in line)
    train = _train(names, wnids, lines)
    test = _validation(names, wnids, lines("val/val_annotations.txt"))
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
        )
        for split, listing in (("train", train), ("test", test))
    }
    return class_names(wnids, words), listings


def _train(names: set[str], wnids: Sequence[str], lines: Callable[[str], list[str]]) -> Listing:
    label = {wnid: i for i, wnid in enumerate(wnids)}
    found = collections.defaultdict(set)
    for name in names:
        if name.startswith("train/") and is_image(name):
            found[name.split("/")[1]].add(name)
    strange = sorted(set(found) - set(wnids))
    if strange:
        raise SemanticFLError(f"train has folders that {MARKER} does not: {', '.join(strange[:5])}")
    problems = {}
    for wnid in wnids:
        boxes = f"train/{wnid}/{wnid}_boxes.txt"
        for line in lines(boxes) if boxes in names else ():
            name = f"train/{wnid}/images/{line.split()[0]}" if line.strip() else ""
            if name and name not in found[wnid]:
                problems[name] = "missing"
    files = [(name, label[wnid]) for wnid in wnids for name in sorted(found[wnid])]
    return Listing([name for name, _ in files], [i for _, i in files], problems=problems)


def _validation(names: set[str], wnids: Sequence[str], annotations: Sequence[str]) -> Listing:
    label = {wnid: i for i, wnid in enumerate(wnids)}
    named = {}
    for line in annotations:
        if line.strip():
            name, wnid = [*line.split("\t"), ""][:2]
            if wnid not in label:
                raise SemanticFLError(f"val_annotations.txt: {line!r} names no class of {MARKER}")
            named[f"val/images/{name}"] = label[wnid]
    images = {name for name in names if name.startswith("val/images/") and is_image(name)}
    problems = {name: "missing" for name in named if name not in images}
    problems |= {name: "not in val_annotations.txt" for name in sorted(images - set(named))}
    kept = [name for name in named if name in images]
    return Listing(kept, [named[name] for name in kept], problems=problems)


def class_names(wnids: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """WordNet's first synonym for every class, ready for a prompt.

    Where classes share it, the next synonym that no other has is added, or at last the id.

    Raises:
      ValueError: for ids without words.
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
