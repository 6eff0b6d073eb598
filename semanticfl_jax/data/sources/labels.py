"""What the labels of images can be: one class, labels of 0 or 1, numbers, or a class a position."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.registry import TASKS

#: By kind, as `TaskTraits.labels` has it: what the arrays are, and what each of K stands for.
FORMS = {
    "class": ("whole numbers from 0, [n]", "class"),
    "binary": ("0 or 1, [n, K]", "label"),
    "numbers": ("numbers, [n] or [n, K]", "number"),
    "tokens": ("whole numbers from 0, -1 where a position does not count, [n, ...]", "class"),
}

#: Label of a position that does not count.
NO_TOKEN = -1

#: So many classes need not be as many as there are images.
_CLASSES_AT_EASE = 1000


def kind_of(labels: np.ndarray) -> str:
    """Return the kind of labels by their type and shape: a key of `FORMS`.

    Whole numbers [n] are classes, whole numbers or truth values of two dimensions are labels of 0
    or 1, all else is numbers. Tokens look like labels of 0 or 1: only a task tells them apart.
    """
    labels = np.asarray(labels)
    if labels.dtype != bool and not np.issubdtype(labels.dtype, np.integer):
        return "numbers"
    return "class" if labels.ndim == 1 else "binary"


def kept_kind(labels: np.ndarray) -> str:
    """Return the kind of labels that a data set holds, by their type and shape: a key of `FORMS`.

    Args:
      labels: as `as_labels` returns them, with any number of samples.
    """
    return "tokens" if labels.ndim > 1 and labels.dtype == np.int32 else kind_of(labels)


def positions(labels: np.ndarray) -> tuple[int, ...]:
    """Return the shape of a sample's positions: of tokens [n, ...] all axes but the first, else ().

    Args:
      labels: as `as_labels` returns them, with any number of samples.
    """
    return labels.shape[1:] if kept_kind(labels) == "tokens" else ()


def wanted_kind(task: str | None, train_labels: Any, test_labels: Any) -> str:
    """Return the kind of labels that a task wants; with `task` None, what the labels look like.

    Where training and test labels look different, they are to be classes if either are.

    Raises:
      ConfigError: for a task that is not registered.
    """
    if task is None:
        kinds = {kind_of(train_labels), kind_of(test_labels)}
        return next(kind for kind in ("class", "numbers", "binary") if kind in kinds)
    TASKS.check(task, "task")
    return TASKS[task].traits.labels


def as_labels(name: str, labels: Any, count: int, kind: str) -> np.ndarray:
    """Return labels as a data set holds them.

    Args:
      name: of the argument, for messages.
      labels: arrays as in `FORMS`.
      count: images, n.
      kind: a key of `FORMS`.

    Returns:
      Of classes int32 [n], of labels of 0 or 1 uint8 [n, K], of numbers float32 [n, K], of tokens
      int32 [n, ...].

    Raises:
      SemanticFLError: for arrays of another form.
    """
    labels = np.asarray(labels)
    if kind == "class":
        return _classes(name, labels, count)
    if kind == "tokens":
        return _tokens(name, labels, count)
    if kind == "numbers" and labels.ndim == 1:
        labels = labels[:, None]
    form = FORMS[kind][0]
    numeric = labels.dtype == bool or (
        np.issubdtype(labels.dtype, np.number) and np.isrealobj(labels)
    )
    hint = ""
    if kind == "binary" and labels.ndim > 1 and np.issubdtype(labels.dtype, np.integer):
        hint = '; labels with a class at each position need task="tokens"'
    if labels.ndim != 2 or len(labels) != count or not labels.size or not numeric:
        raise SemanticFLError(
            f"{name} must be {form}, with n = {count}, got {labels.dtype} {list(labels.shape)}"
            f"{hint}"
        )
    if kind == "binary":
        if not np.isin(labels, (0, 1)).all():
            if labels.shape[1] == 1:
                hint = "; classes, one an image, are [n]: flatten them"
            raise SemanticFLError(f"{name} must be {form}, got others than 0 and 1{hint}")
        return labels.astype(np.uint8)
    if not (np.abs(labels) <= np.finfo(np.float32).max).all():
        raise SemanticFLError(f"{name} must be finite in float32")
    return labels.astype(np.float32)


def _distinct(names: Any, kind: str) -> tuple[str, ...]:
    """Return names as texts; raise `SemanticFLError` if figures of two would go by one name."""
    if names is None:
        return ()
    listed = () if isinstance(names, str) else tuple(map(str, names))
    repeated = sorted(name for name, count in Counter(listed).items() if count > 1)
    # A space is a token like any other.
    empty = not all(name if kind == "tokens" else name.strip() for name in listed)
    if not listed or repeated or empty:
        raise SemanticFLError(
            "class_names must be different texts, none of them empty, got "
            + (f"{', '.join(repeated)} several times" if repeated else repr(names))
        )
    return listed


def _classes(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise SemanticFLError(
            f"{name} must be whole numbers, one an image, [{count}], got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if labels.min() < 0:
        raise SemanticFLError(f"{name} must be at least 0, got {labels.min()}")
    return _as_int32(name, labels)


def _as_int32(name: str, labels: np.ndarray) -> np.ndarray:
    if labels.max() >= 2**31:
        raise SemanticFLError(f"{name} must be below 2^31, got {labels.max()}")
    return labels.astype(np.int32)


def _tokens(name: str, labels: np.ndarray, count: int) -> np.ndarray:
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.ndim < 2 or len(labels) != count or not labels.size or not whole:
        raise SemanticFLError(
            f"{name} must be {FORMS['tokens'][0]}, with n = {count}, got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if labels.min() < NO_TOKEN:
        raise SemanticFLError(
            f"{name} must be at least 0, or {NO_TOKEN} where a position does not count, got "
            f"{labels.min()}"
        )
    if labels.max() < 0:
        raise SemanticFLError(
            f"{name} must have a position that counts, whose label is at least 0; all are "
            f"{NO_TOKEN}"
        )
    return _as_int32(name, labels)


def names_of(
    train_labels: np.ndarray, test_labels: np.ndarray, names: Any, kind: str
) -> tuple[str, ...]:
    """Return a name for each class, label or number; "class 0" and so on where none are given.

    Raises:
      SemanticFLError: for too few names, or two that are the same, or labels of different widths.
    """
    names = _distinct(names, kind)
    if test_labels.shape[1:] != train_labels.shape[1:] and kind == "tokens":
        raise SemanticFLError(
            f"test_labels must have the positions of train_labels, {list(train_labels.shape[1:])} "
            f"a sample, got {list(test_labels.shape[1:])}: fill up with {NO_TOKEN}"
        )
    if kind in ("class", "tokens"):
        classes = int(max(train_labels.max(), test_labels.max())) + 1
        labelled = int(np.count_nonzero(train_labels >= 0))
        if not names and classes > max(_CLASSES_AT_EASE, labelled):
            where = "images" if kind == "class" else "positions that count"
            raise SemanticFLError(
                f"labels go to {classes - 1}, and there are {labelled} training {where}: "
                "number the classes from 0, without gaps, or give class_names"
            )
        names = tuple(names or (f"class {number}" for number in range(classes)))
        if len(names) < classes:
            raise SemanticFLError(
                f"class_names must be one a class: labels go to {classes - 1}, there are "
                f"{len(names)} names"
            )
        return names
    width, word = train_labels.shape[1], FORMS[kind][1]
    if test_labels.shape[1] != width:
        raise SemanticFLError(
            f"test_labels must be as wide as train_labels, {width}, got {test_labels.shape[1]}"
        )
    names = tuple(names or (f"{word} {number}" for number in range(width)))
    if len(names) != width:
        raise SemanticFLError(
            f"class_names must be one a {word}: an image has {width}, there are {len(names)} names"
        )
    return names
