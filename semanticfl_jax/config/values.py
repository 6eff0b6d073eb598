"""What a field takes: values, converted to the type of the field, and that type in words."""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from typing import Annotated, Any, Literal, Protocol

from semanticfl_jax.errors import ConfigError
from semanticfl_jax.paths import local_path, path_or_name
from semanticfl_jax.registry import Registry

#: Numbers that a program of 32 bits holds; others would become infinite or wrap around in it.
LEAST_INT, MOST_INT = -(2**31), 2**31 - 1
MOST_FLOAT = 3.4028234e38

#: A text that is a path on this machine, or a name that may be one.
PathText = Annotated[str, local_path]
PathOrName = Annotated[str, path_or_name]


def group_class(hint: Any) -> type | None:
    """Return the dataclass that a field of type `hint` holds; None if it holds a plain value."""
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


class MakeGroup(Protocol):
    """Makes the group of fields that a field holds."""

    def __call__(self, cls: type, value: Any, path: str) -> Any:
        """Return `value` as an instance of the dataclass `cls`; `path` is where it stands."""


def convert(hint: Any, value: Any, path: str, make_group: MakeGroup) -> Any:
    """Return `value` as the type `hint`; raise `ConfigError` naming `path` if it is none."""
    group = group_class(hint)
    if group is not None:
        return make_group(group, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is Any:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return convert(hint, value.item(), path, make_group)  # a number of NumPy's or JAX's
    if origin is Annotated:
        if args[1] in (local_path, path_or_name) and isinstance(value, str | os.PathLike):
            return str(args[1](value, path))
        if not isinstance(args[1], Registry):
            return convert(args[0], value, path, make_group)
        args[1].check(value, path)
        return value
    if origin in (typing.Union, types.UnionType):
        for kind in (PathText, PathOrName):  # with messages of their own; "" is not none
            if kind in args and value is not None and str(value).lower() != "none":
                return convert(kind, value, path, make_group)
        for part in sorted(args, key=lambda part: part is not type(None)):
            try:
                return convert(part, value, path, make_group)
            except ConfigError:
                continue
    elif origin is Literal and isinstance(value, str | int) and value in args:
        return value
    elif origin is tuple:
        items = _items(args[0], value)
        if items is not None:
            return items
    elif hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    elif hint is int and number and isinstance(value, int):
        if _holds(int, value):
            return value
        raise ConfigError(f"{path} must be from {LEAST_INT} to {MOST_INT}, got {value!r}")
    elif hint is float and number and (isinstance(value, int) or math.isfinite(value)):
        if _holds(float, value):
            return float(value)
        raise ConfigError(f"{path} must be a number that 32 bits hold, up to 3.4e38, got {value!r}")
    elif hint is str and isinstance(value, str):
        return value
    elif hint is str and number and isinstance(value, int):
        return str(value)  # as in data_dir=2024; of 1e5 nobody knows how it was written
    elif hint is type(None) and str(value).lower() in ("none", ""):
        return None
    raise ConfigError(f"{path} must be {describe(hint)}, got {value!r}")


def _items(hint: Any, value: Any) -> tuple | None:
    """Return a list, or a text with commas, as a tuple of `hint`s; None if it is none."""
    items = value.split(",") if isinstance(value, str) else value
    if isinstance(items, int | float) and not isinstance(items, bool):
        items = [items]
    if not isinstance(items, list | tuple):
        return None
    items = [item.strip() if isinstance(item, str) else item for item in items]
    items = [item for item in items if item != ""]
    if hint in (int, float):
        try:
            numbers = [hint(str(item).replace("_", "?")) for item in items]  # no 1_000
        except ValueError:
            return None
        return tuple(numbers) if all(_holds(hint, number) for number in numbers) else None
    if not all(isinstance(item, str) for item in items):
        return None
    choices = _choices(hint)
    if choices and items == ["none"]:
        return ()
    return tuple(items) if not choices or set(items) <= set(choices) else None


def _holds(hint: Any, number: float) -> bool:
    """Return whether 32 bits hold a number as an `int` or a `float`."""
    return LEAST_INT <= number <= MOST_INT if hint is int else abs(number) <= MOST_FLOAT


def describe(hint: Any) -> str:
    """Return what a field of type `hint` accepts, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if args[1] is local_path:
            return "a path"
        return (
            "one of " + ", ".join(args[1]) if isinstance(args[1], Registry) else describe(args[0])
        )
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in args)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    names[type(None)] = "none"
    if origin is tuple:
        choices = _choices(args[0])
        if choices:
            return "none or a list of " + ", ".join(map(str, choices))
        kinds = {int: "whole numbers", float: "numbers"}
        return "a list of " + kinds.get(args[0], "texts")
    return names.get(hint, str(hint))


def _choices(hint: Any) -> list[Any]:
    """Return the names that a field of type `hint` chooses from; none for a plain value."""
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    if typing.get_origin(hint) is Annotated and isinstance(typing.get_args(hint)[1], Registry):
        return list(typing.get_args(hint)[1])
    return []
