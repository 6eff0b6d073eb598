"""Which folders of a tree are its training and test splits, whatever they are called.

Our own rules: names are read without case, separators, digits and words such as "images". A name
alone does not make a split, since "Train" may be a class: folders are splits where one for training
stands beside one to test on.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from semanticfl_jax.data.sources.file_tree import Archive, Directory
from semanticfl_jax.data.sources.image_formats import is_image
from semanticfl_jax.errors import SemanticFLError

#: Names of each split; the first is the usual one.
ROLES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "learn", "learning"),
    "test": ("test", "testing", "tests", "tst", "eval", "evaluation", "holdout", "heldout"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"),
}
#: What a split's name may have beside its own word: "seg_train", "ILSVRC2012_img_val", "test-set";
#: longer words first.
_BESIDE = (
    "(?:cropped|private|dataset|folder|public|images|ilsvrc|image|split|final|imgs|data|img|seg"
    "|set)"
)
_OUTSIDE = re.compile(f"^{_BESIDE}(?=.)|(?<=.){_BESIDE}$")
_WRAPPER = re.compile(f"{_BESIDE}+")


@dataclasses.dataclass(frozen=True)
class Splits:
    """Where the images of each split are.

    Attributes:
      train: folder of the training images, as a prefix of names: "" or with a slash at its end.
      test: likewise; None: a share of the training images is to be held out.
      notes: what the user should know about the choice, a sentence each.
    """

    train: str
    test: str | None
    notes: tuple[str, ...] = ()


def role_of(name: str) -> str | None:
    """Return "train", "test" or "val" for a folder called like such a split; None for others."""
    plain = _plain(name)
    while True:
        for role, words in ROLES.items():
            if plain in words:
                return role
        shorter = _OUTSIDE.sub("", plain, count=1)
        if shorter == plain:
            return None
        plain = shorter


def find_splits(tree: Directory | Archive) -> Splits:
    """Return the splits of a tree of images, each a folder with a folder a class.

    Raises:
      SemanticFLError: for splits that contradict one another, or of which one is missing.
    """
    root = _descend(tree)
    roles: dict[str, list[str]] = {role: [] for role in ROLES}
    others = []
    for name in tree.folders(root):
        role = role_of(name)
        (others if role is None else roles[role]).append(name)
    train, held_out = roles["train"], roles["test"] + roles["val"]
    if train and held_out:
        return _with_test(tree, root, roles, others)
    if "train" in train and not (others and _holds_images(tree, f"{root}train/")):
        raise SemanticFLError(
            f"{tree.path / root} has a train folder but neither test nor val; make one, or name "
            f"{tree.path / root}/train as data_dir to have a share of it held out"
        )
    _refuse_lone_splits(tree, root, train, held_out, others)
    return Splits(root, None, _notes_on_classes(tree, root))


def _with_test(
    tree: Directory | Archive, root: str, roles: Mapping[str, list[str]], others: Sequence[str]
) -> Splits:
    """Choose the folder of each split, where there are some for training and some to test on."""
    found = {role: _only(role, names) for role, names in roles.items()}
    unclear = [role for role, names in roles.items() if names and found[role] is None]
    if found["train"] is None or (found["test"] is None and found["val"] is None):
        role = unclear[0]
        raise SemanticFLError(
            f"{tree.path / root} has several folders that may be the {role} split: "
            f"{', '.join(roles[role])}; call the one to use {role}"
        )
    prefixes = {role: _inner(tree, f"{root}{name}/", role) for role, name in found.items() if name}
    classes, notes, held_out = set(tree.folders(prefixes["train"])), [], "test"
    if "test" not in prefixes:
        held_out = "val"
    elif "val" in prefixes and not classes & set(tree.folders(prefixes["test"])):
        held_out = "val"
        notes.append(
            f"{found['test']} has no folder of a class of {found['train']}: {found['val']} is the "
            "test split"
        )
    used = (found["train"], found[held_out])
    for name in sorted([*others, *(name for names in roles.values() for name in names)]):
        told = held_out == "val" and name == found["test"]
        if name not in used and not told and _holds_images(tree, f"{root}{name}/", below=True):
            notes.append(f"{name} is not used, {found[held_out]} is the test split")
    return Splits(prefixes["train"], prefixes[held_out], tuple(notes))


def _descend(tree: Directory | Archive) -> str:
    """Return the folder to read: the top, or below it while there is but one folder.

    In a directory only where splits are below, or the folder is called "images" or the like: a lone
    folder may be a lone class.
    """
    root = ""
    while len(folders := tree.folders(root)) == 1:
        inside = f"{root}{folders[0]}/"
        below = tree.folders(inside)
        clear = "train" in map(role_of, below) or _WRAPPER.fullmatch(_plain(folders[0]))
        lone_class = isinstance(tree, Directory) and len(below) > 1 and not clear
        if role_of(folders[0]) or _holds_images(tree, root) or not below or lone_class:
            break
        root = inside
    return root if len(tree.folders(root)) > 1 else ""


def _inner(tree: Directory | Archive, prefix: str, role: str) -> str:
    """Return a split's folder, or the one alone in it that is called like it, or "images"."""
    while len(inside := tree.folders(prefix)) == 1 and not _holds_images(tree, prefix):
        if role_of(inside[0]) != role and not _WRAPPER.fullmatch(_plain(inside[0])):
            break
        prefix = f"{prefix}{inside[0]}/"
    return prefix


def _only(role: str, names: Sequence[str]) -> str | None:
    """Return the folder of a role: of the usual name, or the only one; None if unclear."""
    usual = [name for name in names if name == role]
    usual = usual or [name for name in names if name.lower() == role] or list(names)
    return usual[0] if len(usual) == 1 else None


def _refuse_lone_splits(
    tree: Directory | Archive,
    root: str,
    train: Sequence[str],
    held_out: Sequence[str],
    others: Sequence[str],
) -> None:
    """Raise SemanticFLError where folders are called like splits and cannot be classes."""
    lone = [*train, *held_out]
    if lone and not others:
        missing = "a test folder (or val)" if train else "a train folder"
        raise SemanticFLError(
            f"{tree.path / root} holds {' and '.join(lone)}, and {missing} is missing"
        )
    for name in lone:
        both = sorted(set(tree.folders(f"{root}{name}/")) & set(others))
        if len(both) > 1:
            raise SemanticFLError(
                f"{tree.path / root} holds {', '.join(both[:5])}, and so does {name} in it: move "
                "those beside it into a folder train"
            )


def _notes_on_classes(tree: Directory | Archive, root: str) -> tuple[str, ...]:
    """Return what may be wrong with taking every folder for a class."""
    folders = tree.folders(root)
    notes = [f"{name} is read as a class" for name in folders if role_of(name)]
    inside = {tuple(tree.folders(f"{root}{name}/")) for name in folders}
    if len(folders) > 1 and len(inside) == 1 and len(same := inside.pop()) > 1:
        notes.append(
            f"{', '.join(folders[:5])} are read as the classes, and each holds "
            f"{', '.join(same[:5])}; if those are the classes, call the folders train and test"
        )
    if isinstance(tree, Directory) and not root and role_of(tree.path.name) == "train":
        beside = [
            path.name
            for path in sorted(tree.path.resolve().parent.iterdir())
            if path.is_dir() and role_of(path.name) in ("test", "val")
        ]
        if beside:
            notes.append(f"{', '.join(beside)} beside it: not used; name the folder of both for it")
    return tuple(notes)


def _holds_images(tree: Directory | Archive, prefix: str, *, below: bool = False) -> bool:
    """Return whether images lie in a folder itself or, with `below`, at any depth."""
    inside = (name.removeprefix(prefix) for name in tree.names if name.startswith(prefix))
    return any((below or "/" not in name) and is_image(name) for name in inside)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
