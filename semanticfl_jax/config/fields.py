"""What configuration classes are made of: types checked in every constructor, groups by name.

`Config` converts and checks its fields when an instance is made, from Python and from the command
line alike. `Choosing` is a group in which an entry of a registry is chosen by name and has settings
of its own. `from_dict` and `to_dict` turn them into plain values and back. The standard library
alone is imported, so that a mistake is answered at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from semanticfl_jax.errors import ConfigError
from semanticfl_jax.paths import local_path, path_or_name
from semanticfl_jax.registry import Entry, NoSettings, Registry

T = TypeVar("T")

#: Numbers that a program of 32 bits holds; others would become infinite or wrap around in it.
LEAST_INT, MOST_INT = -(2**31), 2**31 - 1
MOST_FLOAT = 3.4028234e38

#: A text that is a path on this machine, or a name that may be one.
PathText = Annotated[str, local_path]
PathOrName = Annotated[str, path_or_name]

#: Fields that were elsewhere before, and where they are now.
MOVED = {
    "num_devices": "runtime.num_devices",
    "clients_per_chunk": "runtime.clients_per_chunk",
    "rounds_per_dispatch": "runtime.rounds_per_dispatch",
    "eval_batch_size": "runtime.eval_batch_size",
    "tuning": "runtime.tuning",
    "client_state_memory": "runtime.client_state_memory",
    "model.conv": "runtime.conv",
}


#: What other frameworks, and people in a hurry, call fields.
CALLED_ELSEWHERE = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "epochs": "local_epochs",
    "local_ep": "local_epochs",
    "clients": "num_clients",
    "n_clients": "num_clients",
    "cohort": "clients_per_round",
    "cohort_size": "clients_per_round",
    "num_rounds": "rounds",
    "comm_rounds": "rounds",
    "algo": "algorithm.name",
    "method": "algorithm.name",
    "strategy": "algorithm.name",
    "arch": "model.name",
    "net": "model.name",
    "data": "dataset",
    "gpus": "runtime.num_devices",
}


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raise `ConfigError` unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{field} must be {allowed}, got {value!r}")


def require_at_least(group: object, least: float, *names: str) -> None:
    """Raise `ConfigError` unless each of these fields of `group` is at least `least`."""
    for name in names:
        require(getattr(group, name) >= least, name, f"at least {least}", getattr(group, name))


def require_positive(group: object, *names: str) -> None:
    """Raise `ConfigError` unless each of these fields of `group` is above 0."""
    for name in names:
        require(getattr(group, name) > 0, name, "greater than 0", getattr(group, name))


#: Metadata of fields that do not decide a run's results.
FREE = {"decides_results": False}


def free(default: Any) -> Any:
    """Return a field that does not decide a run's results: one workdir may see several values."""
    return dataclasses.field(default=default, metadata=FREE)


@dataclasses.dataclass(frozen=True)
class SettingsOf:
    """Marks a field that holds the settings of what another field of its group chooses by name.

        dataset: Annotated[str, DATASETS] = "cifar10"
        dataset_settings: Annotated[Any, SettingsOf("dataset")] = None

    An instance has the settings there, checked; None where the entry has none.
    """

    field: str


class Config:
    """Base of the configuration's frozen dataclasses."""

    def __post_init__(self) -> None:
        for name, hint in field_types(type(self)).items():
            object.__setattr__(self, name, convert(hint, getattr(self, name), name))
        for name, (field, registry) in settings_fields(type(self)).items():
            entry, given = registry[getattr(self, field)], getattr(self, name)
            if given is not None or entry.settings is not NoSettings:
                object.__setattr__(self, name, settings_of(entry, given, name))
        self.check()

    def check(self) -> None:
        """Raise `ConfigError` for values that are out of range or contradict one another."""


class Choosing(Config):
    """A group whose entries of registries are chosen by name and have settings of their own.

    `settings` holds those of the one that is chosen; where several are, a mapping by name. As plain
    values, and on the command line, the settings of NAME are the group NAME.
    """

    #: By field: where its name, or names, are looked up.
    registries: ClassVar[dict[str, Registry]] = {}
    settings: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        several = self.takes_several()
        given = self.settings
        if several:
            given = {} if given is None else given
            if not isinstance(given, Mapping):
                raise ConfigError(f"settings must be a mapping by name, got {given!r}")
            for name in given:
                require(name in self.chosen(), "settings", self._allowed(), name)
            made = {
                name: settings_of(entry, given.get(name)) for name, entry in self.chosen().items()
            }
        else:
            (entry,) = self.chosen().values()
            made = settings_of(entry, given)
        object.__setattr__(self, "settings", made)

    @classmethod
    def takes_several(cls) -> bool:
        """Return whether more than one entry can be chosen, by more than one name."""
        return len(cls.registries) > 1

    def chosen(self) -> dict[str, Entry]:
        """Return the entries that are chosen, by name."""
        found = {}
        for field, registry in self.registries.items():
            value = getattr(self, field)
            for name in (value,) if isinstance(value, str) else value:
                found[name] = registry[name]
        return found

    @classmethod
    def entries(cls) -> dict[str, Entry]:
        """Return all entries that could be chosen, by name."""
        return {
            name: entry for registry in cls.registries.values() for name, entry in registry.items()
        }

    def _allowed(self) -> str:
        return f"of what is chosen: {', '.join(self.chosen())}"


def settings_of(entry: Entry, given: Any, field: str = "settings") -> Any:
    """Return an entry's settings, checked: the defaults for None, else what was given.

    Args:
      entry: of a registry.
      given: an instance of its settings, or a mapping of some of their fields.
      field: that holds them; the settings of NAME in `settings` are the group NAME.
    """
    prefix = f"{entry.name}." if field == "settings" else f"{field}."
    # `dataclasses.replace` with another name keeps the settings of the last one.
    stale = field != "settings" and not isinstance(given, entry.settings) and _is_default(given)
    if given is None or isinstance(given, NoSettings) or stale:
        given = entry.settings()
    if entry.settings is NoSettings and not isinstance(given, NoSettings) and given != {}:
        raise ConfigError(f"{field} must be none: {entry.name} has none, got {given!r}")
    if isinstance(given, Mapping):
        return from_dict(entry.settings, given, prefix=prefix)
    if not isinstance(given, entry.settings):
        wanted = entry.settings.__name__
        raise ConfigError(f"{field} must be {wanted} with {entry.name}, got {given!r}")
    if isinstance(given, Config):
        return given
    values = {f.name: getattr(given, f.name) for f in dataclasses.fields(given) if f.init}
    return from_dict(entry.settings, values, prefix=prefix)


def _is_default(given: Any) -> bool:
    """Return whether settings are the defaults of their class."""
    return (
        dataclasses.is_dataclass(given) and not isinstance(given, type) and given == type(given)()
    )


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Return the type of every field that is checked; `settings` are checked on their own."""
    hints = typing.get_type_hints(cls, include_extras=True)
    skipped = {"settings"} if issubclass(cls, Choosing) else set()
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name not in skipped}


@functools.cache
def settings_fields(cls: type) -> dict[str, tuple[str, Registry]]:
    """Return the fields of `cls` that hold another's settings: that other, and its registry."""
    hints, found = field_types(cls), {}
    for name, hint in hints.items():
        marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
        for mark in marks:
            if isinstance(mark, SettingsOf):
                found[name] = (mark.field, typing.get_args(hints[mark.field])[1])
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """Return the nested plain values of a configuration, ready for JSON (tuples become lists)."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "settings" and isinstance(config, Choosing):
            groups = value if config.takes_several() else {next(iter(config.chosen())): value}
            values |= {
                name: to_dict(group) for name, group in groups.items() if dataclasses.fields(group)
            }
        else:
            values[field.name] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build the dataclass `cls` from a nested mapping; missing fields keep their defaults.

    Raises:
      ConfigError: for an unknown field, a value of the wrong type, or one that is not allowed.
    """
    hints, entries = field_types(cls), entries_of(cls)
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"{prefix[:-1] or cls.__name__} must be fields by name, got {values!r}")
    arguments, groups = {}, {}
    for name, value in values.items():
        if name in hints:
            arguments[name] = convert(hints[name], value, prefix + name)
        elif name in entries:
            groups[name] = _group(entries[name].settings, value, prefix + name)
        else:
            raise ConfigError(unknown_field(cls, prefix, name))
    if groups:
        arguments["settings"] = _chosen_groups(cls, arguments, groups, prefix)
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def entries_of(cls: type) -> dict[str, Entry]:
    """Return the entries of registries that `cls` chooses from, by name; none for other classes."""
    return cls.entries() if issubclass(cls, Choosing) else {}


def _group(cls: type, value: Any, path: str) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} is a group of fields, got {value!r}")
    return from_dict(cls, value, prefix=f"{path}.")


def _chosen_groups(
    cls: type[Choosing], arguments: Mapping[str, Any], groups: Mapping[str, Any], prefix: str
) -> Any:
    """Return the settings of what is chosen; raise for others that are not at their defaults."""
    names = chosen_names(cls, arguments)
    for name, group in groups.items():
        if name not in names and (changed := changed_fields(group)):
            field = next(each for each, registry in cls.registries.items() if name in registry)
            default = next(each.default for each in dataclasses.fields(cls) if each.name == field)
            now = arguments.get(field, default)
            now = now if isinstance(now, str) else ", ".join(now) or "none"
            raise ConfigError(
                f"{prefix}{name}.{changed[0]} is set, but {prefix}{field} is {now}; leave it out, "
                f"or choose {name}"
            )
    kept = {name: group for name, group in groups.items() if name in names}
    return kept if cls.takes_several() else next(iter(kept.values()), None)


def chosen_names(cls: type[Choosing], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that plain values of `cls` choose, each with the field it stands in."""
    names = {}
    for field in dataclasses.fields(cls):
        if field.name in cls.registries:
            value = values.get(field.name, field.default)
            several = value if isinstance(value, list | tuple) else (value,)
            names |= dict.fromkeys((n for n in several if isinstance(n, str)), field.name)
    return names


def changed_fields(group: Any) -> list[str]:
    """Return the names of the fields that are not at their defaults."""
    default = type(group)()
    return [
        field.name
        for field in dataclasses.fields(group)
        if getattr(group, field.name) != getattr(default, field.name)
    ]


def unknown_field(cls: type, prefix: str, name: str) -> str:
    """Return the message for a field that does not exist: the nearest name, and all that do."""
    path = prefix + name
    if "." in name:  # in a file, where groups are objects in objects
        group, _, rest = name.partition(".")
        return f'unknown config field {path}; write it as a group, {{"{group}": {{"{rest}": ...}}}}'
    if path in MOVED:
        return f"config field {path} is now {MOVED[path]}"
    known = sorted(prefix + each for each in [*field_types(cls), *_with_settings(cls)])
    return unknown_name(path, known, [prefix + each for each in guesses(cls, name)])


def unknown_name(path: str, known: list[str], near: list[str] | None = None) -> str:
    """Return the message for the dotted `path`, which is none of `known`; `near` may be meant."""
    near = difflib.get_close_matches(path, known, n=1) if near is None else near
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    fields = f" Fields: {', '.join(known)}" if known else ""
    return f"unknown config field {path}.{hint}{fields}"


def guesses(cls: type, name: str) -> list[str]:
    """Return the fields of `cls`, by dotted path, that may be meant by an unknown `name`.

    What it is called elsewhere, the nearest name, or fields of that name in groups.
    """
    if name in CALLED_ELSEWHERE and CALLED_ELSEWHERE[name].split(".")[0] in field_types(cls):
        return [CALLED_ELSEWHERE[name]]
    known = [*field_types(cls), *_with_settings(cls)]
    inside = [
        f"{group}.{name}"
        for group, hint in field_types(cls).items()
        if group_class(hint) is not None and name in field_types(group_class(hint))
    ]
    return inside or difflib.get_close_matches(name, known, n=1)


def _with_settings(cls: type) -> list[str]:
    return [name for name, entry in entries_of(cls).items() if dataclasses.fields(entry.settings)]


def group_class(hint: Any) -> type | None:
    """Return the dataclass that a field of type `hint` holds; None if it holds a plain value."""
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


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


def convert(hint: Any, value: Any, path: str) -> Any:
    """Return `value` as the type `hint`; raise `ConfigError` naming `path` if it is none."""
    if group_class(hint) is not None:
        return _group(hint, value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is Any:
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return convert(hint, value.item(), path)  # a number of NumPy's or JAX's
    if origin is Annotated:
        if args[1] in (local_path, path_or_name) and isinstance(value, str | os.PathLike):
            return str(args[1](value, path))
        if not isinstance(args[1], Registry):
            return convert(args[0], value, path)
        args[1].check(value, path)
        return value
    if origin in (typing.Union, types.UnionType):
        for kind in (PathText, PathOrName):  # with messages of their own; "" is not none
            if kind in args and value is not None and str(value).lower() != "none":
                return convert(kind, value, path)
        for part in sorted(args, key=lambda part: part is not type(None)):
            try:
                return convert(part, value, path)
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
        require(_holds(int, value), path, f"from {LEAST_INT} to {MOST_INT}", value)
        return value
    elif hint is float and number and (isinstance(value, int) or math.isfinite(value)):
        require(_holds(float, value), path, "a number that 32 bits hold, up to 3.4e38", value)
        return float(value)
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


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted names and the values of nested plain values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
