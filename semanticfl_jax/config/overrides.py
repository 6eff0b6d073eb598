"""Values typed on the command line, on top of those of a configuration file.

A text becomes what its field holds: a text field takes it as it was typed, `7e345678` and all.
What an override leaves without effect in the file (the settings of an algorithm that is no longer
the one chosen) goes back to its default; an override without effect is an error.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

from semanticfl_jax.config.fields import (
    Choosing,
    chosen_names,
    entries_of,
    field_types,
    from_dict,
    known_fields,
    make_group,
    settings_fields,
)
from semanticfl_jax.config.unknown_fields import unknown_field, unknown_name
from semanticfl_jax.config.values import convert, group_class
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import Registry

T = TypeVar("T")

_unused_allowed = contextvars.ContextVar("unused_allowed", default=False)


def unused_is_an_error() -> bool:
    """Return whether settings without effect are refused: not inside `unused_allowed`."""
    return not _unused_allowed.get()


@contextlib.contextmanager
def unused_allowed() -> Iterator[None]:
    """Let settings be without effect in what is made inside: a half of something, or derived."""
    token = _unused_allowed.set(True)
    try:
        yield
    finally:
        _unused_allowed.reset(token)


def parse(cls: type, path: str, text: str) -> Any:
    """Return the value that `text` means for the field with the dotted `path` of `cls`.

    Raises:
      ConfigError: for a path that does not exist or is a group, or a text that means nothing there.
    """
    hint = check_override(cls, path)
    group = group_class(hint)
    if group is not None:
        fields = list(field_types(group))
        example = f"{path}.{'name' if 'name' in fields else fields[0]}"
        raise ConfigError(
            f"{path} is a group of fields; set one of them, as in --config.{example}={text}"
        )
    return convert(hint, _read(hint, text), path, make_group)


def check_override(cls: type, path: str) -> Any:
    """Return the type of the field with the dotted `path` (`model.width`) of `cls`.

    Settings of what may be chosen are looked up in all entries of a registry, since the path does
    not say which of them is.

    Raises:
      ConfigError: if there is none.
    """
    prefix, hint = "", cls
    choices: Registry | None = None
    for name in path.split("."):
        group = group_class(hint)
        if choices is not None:
            hint, choices = _setting_type(choices, prefix, name), None
        elif group is None:
            raise ConfigError(f"unknown config field {prefix}{name}. {prefix[:-1]} is no group")
        elif name in field_types(group):
            hint = field_types(group)[name]
            choices = settings_fields(group).get(name, (None, None))[1]
        elif name in entries_of(group):
            hint = entries_of(group)[name].settings
        else:
            raise ConfigError(unknown_field(known_fields(group), prefix, name))
        prefix += f"{name}."
    return hint


def _setting_type(registry: Registry, prefix: str, name: str) -> Any:
    """Return the type of the setting `name` in the entries of a registry that have it."""
    types_by_name: dict[str, list[Any]] = {}
    for entry in registry.values():
        for field, hint in field_types(entry.settings).items():
            types_by_name.setdefault(field, []).append(hint)
    if name not in types_by_name:
        known = sorted(prefix + each for each in types_by_name)
        reason = "" if known else f" No {registry.kind} has settings."
        raise ConfigError(unknown_name(prefix + name, known) + reason)
    return typing.Union[tuple(types_by_name[name])]  # noqa: UP007 - made of a list


def _read(hint: Any, text: str) -> Any:
    """Return a number where `hint` takes one and `text` is one; else `text`."""
    kinds = _kinds(hint)
    if text in kinds:  # a literal
        return text
    if int in kinds and re.fullmatch(r"[+-]?\d{1,400}", text.strip()):
        return int(text)
    if float in kinds and "_" not in text:
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _kinds(hint: Any) -> set[Any]:
    """Return the plain types, and the literal values, that `hint` is a choice of."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(_kinds, args))
    return set(args) if origin is Literal else {hint} if isinstance(hint, type) else set()


def combine(
    cls: type[T],
    values: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    optional: Mapping[str, Any] | None = None,
) -> T:
    """Build a configuration of a file's values and of overrides.

    Args:
      cls: the configuration's class.
      values: nested plain values, as a file gives them.
      overrides: by dotted path; each must have an effect.
      optional: overrides that give way to `overrides`, and may be without effect.
    """
    merged = copy.deepcopy(dict(values))
    for name, (field, _) in settings_fields(cls).items():
        if field in overrides and overrides[field] != merged.get(field):
            merged.pop(name, None)  # settings of what is no longer chosen
    for path, value in {**(optional or {}), **overrides}.items():
        _put(merged, path, value)
    _drop_unchosen(cls, merged, overrides)
    with unused_allowed():
        config = from_dict(cls, merged)
    for path in getattr(config, "unused", dict)():
        if path not in overrides:
            _drop(merged, path)
    return from_dict(cls, merged)


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    for name in groups:
        if values.get(name) is None:  # no group yet, or settings that stand for their defaults
            values[name] = {}
        values = values[name]
    values[last] = value


def _drop(values: dict[str, Any], path: str) -> None:
    *groups, last = path.split(".")
    for name in groups:
        values = values.get(name, {})
    values.pop(last, None)


def _drop_unchosen(
    cls: type, values: dict[str, Any], overrides: Mapping[str, Any], prefix: str = ""
) -> None:
    """Remove the settings of what is not chosen, but for those that `overrides` set."""
    if issubclass(cls, Choosing):
        chosen = chosen_names(cls, values)
        for name in [n for n in values if n in cls.entries() and n not in field_types(cls)]:
            asked = any(path.startswith(f"{prefix}{name}.") for path in overrides)
            if name not in chosen and not asked:
                del values[name]
    for name, hint in field_types(cls).items():
        group = group_class(hint)
        if group is not None and isinstance(values.get(name), dict):
            _drop_unchosen(group, values[name], overrides, f"{prefix}{name}.")
