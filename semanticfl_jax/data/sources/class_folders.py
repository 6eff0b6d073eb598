"""Folders that are classes: which of them are one class, and what it is called.

Letters with accents are composed (Unicode's NFC) whatever wrote the folder: Macs take them apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from semanticfl_jax.errors import SemanticFLError


def class_of(folder: str) -> str:
    """Return the class that a folder stands for: its name, composed."""
    return unicodedata.normalize("NFC", folder)


def classes_in(place: Path, folders: Iterable[str]) -> list[str]:
    """Return the classes of the folders that lie in one place, sorted.

    Raises:
      SemanticFLError: if two of them are one class.
    """
    classes = sorted(map(class_of, folders))
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise SemanticFLError(
            f"{place} has two folders {', '.join(twice[:5])}, whose names differ in how letters "
            "with accents are composed; move the images of both into one"
        )
    return classes


def class_names(place: Path, classes: Sequence[str]) -> list[str]:
    """Return what classes are called: with spaces for `_` and `-`, if that leaves anything.

    Raises:
      SemanticFLError: if two of them are called the same.
    """
    names = [" ".join(re.sub("[_-]", " ", name).split()) or name for name in classes]
    if len(set(names)) < len(names):
        twice = [c for c, name in zip(classes, names, strict=True) if names.count(name) > 1]
        raise SemanticFLError(
            f"{place}: classes must differ by more than '_', '-' and spaces: {twice}"
        )
    return names


def without_images(place: Path, missing: Sequence[str], there: Iterable[str]) -> str:
    """Return what to say of classes that have no images in a place, where others have some."""
    line = f"{place} has no images for {', '.join(missing[:5])}"
    alike = {name.casefold(): name for name in there}
    similar = [f"{alike[m.casefold()]} for {m}" for m in missing if m.casefold() in alike]
    if similar:
        return f"{line}, but has {', '.join(similar[:5])}: call the folders of a class alike"
    return f"{line}; every class must have some in each split, or no folder at all"
