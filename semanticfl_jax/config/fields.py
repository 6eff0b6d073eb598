"""Configuration classes from plain values: types converted, mistakes named, no library needed.

`from_dict` turns a mapping (a JSON file, a config file with command-line overrides) into a frozen
dataclass; a wrong name or value raises `ConfigError`, which names the field and lists what is
allowed. The standard library alone is imported, so that a mistyped flag fails at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration field has a wrong name or value; the message names it and what is allowed."""


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raises `ConfigError` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{field} must be {allowed}, got {value!r}")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a configuration, ready for JSON (tuples become lists)."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Builds and validates the dataclass `cls` from a nested mapping; missing fields keep defaults.

    Raises:
      ConfigError: for an unknown field, a value of the wrong type, or one that is not allowed.
    """
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ConfigError(unknown_field(prefix + name, [prefix + known for known in hints]))
    converted = {
        name: _convert(hints[name], value, prefix + name) for name, value in values.items()
    }
    try:
        return cls(**converted)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def unknown_field(name: str, known: typing.Iterable[str]) -> str:
    """Message for a field that does not exist, with the nearest name and all that do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"unknown config field {name}.{hint} Fields: {', '.join(known)}"


def check_override(cls: type, path: str) -> None:
    """Raises `ConfigError` unless the dotted `path` (`model.width`) names a field of `cls`."""
    prefix = ""
    for name in path.split("."):
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        if name not in hints:
            raise ConfigError(unknown_field(prefix + name, [prefix + known for known in hints]))
        cls, prefix = hints[name], f"{prefix}{name}."


def describe(hint: Any) -> str:
    """What a field of type `hint` accepts, in words."""
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(part) for part in typing.get_args(hint))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    names[type(None)] = "none"
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if typing.get_origin(item) is Literal:
            return "none or a list of " + ", ".join(map(str, typing.get_args(item)))
        return "a list of " + ("whole numbers" if item is int else "texts")
    return names.get(hint, str(hint))


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type, or `ConfigError`."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is a group of fields, got {value!r}")
        return from_dict(hint, value, prefix=f"{path}.")
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        for part in sorted(args, key=lambda part: part is not type(None)):
            try:
                return _convert(part, value, path)
            except ConfigError:
                continue
    elif origin is Literal and value in args:
        return value
    elif origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = [items] if isinstance(items, int) and not isinstance(items, bool) else items
        if isinstance(items, list | tuple):
            items = [item for item in items if item != ""]
            if args[0] is int and all(str(item).strip().lstrip("-").isdecimal() for item in items):
                return tuple(int(item) for item in items)
            if args[0] is not int and all(isinstance(item, str) for item in items):
                items = [item.strip() for item in items if item.strip()]
                names = typing.get_args(args[0])  # of a Literal; a plain text has none
                if names and items == ["none"]:
                    return ()
                if not names or set(items) <= set(names):
                    return tuple(items)
    elif hint is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    elif hint is int and number and isinstance(value, int):
        return value
    elif hint is float and number and math.isfinite(value):
        return float(value)
    elif hint is str and (isinstance(value, str) or number):
        return str(value)  # a number typed for a text field, as in data_dir=2024
    elif hint is type(None) and str(value).lower() in ("none", ""):
        return None
    raise ConfigError(f"{path} must be {describe(hint)}, got {value!r}")
