"""What configuration classes are made of: types checked in every constructor, groups by name.

`Config` converts and checks its fields when an instance is made, from Python and from the command
line alike. `Choosing` is a group in which an entry of a registry is chosen by name and has settings
of its own. `from_dict` and `to_dict` turn them into plain values and back. The standard library
alone is imported, so that a mistake is answered at once.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from semanticfl_jax.config.unknown_fields import unknown_field
from semanticfl_jax.config.values import convert, group_class
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import Entry, NoSettings, Registry

T = TypeVar("T")


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

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Raise `ConfigError` for a field that does not exist, with what may be meant."""
        known = inspect.signature(cls.__init__).parameters if fields else {}
        for name in fields:
            if name not in known:
                raise ConfigError(_unknown_argument(cls, name, known))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, hint in field_types(type(self)).items():
            object.__setattr__(self, name, convert(hint, getattr(self, name), name, make_group))
        for name, (field, registry) in settings_fields(type(self)).items():
            entry, given = registry[getattr(self, field)], getattr(self, name)
            if given is not None or entry.settings is not NoSettings:
                object.__setattr__(self, name, settings_of(entry, given, name))
        self.check()

    def check(self) -> None:
        """Raise `ConfigError` for values that are out of range or contradict one another."""


def _unknown_argument(cls: Any, name: str, known: Collection[str]) -> str:
    """Return the message for a field that a constructor does not take."""
    own = [each for each, names in known_fields(cls).items() if name in names and each not in known]
    if own:
        setting = f"{{{name!r}: ...}}"
        if cls.takes_several():
            setting = f"{{{own[0]!r}: {setting}}}"
        return (
            f"{cls.__name__} has no field {name}; of {' or '.join(own)} it is given as "
            f"settings={setting}"
        )
    if name in entries_of(cls):
        settings = f"{{{name!r}: {{...}}}}" if cls.takes_several() else "{...}"
        return f"{cls.__name__} has no field {name}; its settings are given as settings={settings}"
    fields = {each: names for each, names in known_fields(cls).items() if each in known}
    return f"{cls.__name__}: {unknown_field(fields, '', name)}"


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
                require(name in self.chosen(), "settings", self._allowed(name), name)
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

    def _allowed(self, name: Any) -> str:
        """Return which settings there can be, in words; `name` is none of them."""
        chosen = self.chosen()
        said = f"of what is chosen: {', '.join(chosen)}"
        for each, entry in chosen.items():
            if name in (field.name for field in dataclasses.fields(entry.settings)):
                return f"{said}, as in settings={{{each!r}: {{{name!r}: ...}}}}"
        return said


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
            arguments[name] = convert(hints[name], value, prefix + name, make_group)
        elif name in entries:
            groups[name] = make_group(entries[name].settings, value, prefix + name)
        else:
            raise ConfigError(unknown_field(known_fields(cls), prefix, name))
    if groups:
        arguments["settings"] = _chosen_groups(cls, arguments, groups, prefix)
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def entries_of(cls: type) -> dict[str, Entry]:
    """Return the entries of registries that `cls` chooses from, by name; none for other classes."""
    return cls.entries() if issubclass(cls, Choosing) else {}


def known_fields(cls: type) -> dict[str, tuple[str, ...]]:
    """Return the fields of `cls`, groups of settings included, each with those of its group."""
    found: dict[str, tuple[str, ...]] = {}
    for name, hint in field_types(cls).items():
        group = group_class(hint)
        found[name] = () if group is None else tuple(field_types(group))
    settings = {name: dataclasses.fields(each.settings) for name, each in entries_of(cls).items()}
    own = {name: tuple(field.name for field in fields) for name, fields in settings.items()}
    return found | {name: fields for name, fields in own.items() if fields}


def make_group(cls: type, value: Any, path: str) -> Any:
    """Return the group `cls` with the fields in `value`, which may be one; `path` is its place."""
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"{path} is a group of fields, got {value!r}; from Python, {cls.__name__}(...)"
        )
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


def default_of(cls: type, path: str) -> Any:
    """Return the default of the field with the dotted `path` of `cls`, as a plain value.

    Raises:
      ConfigError: if there is no such field.
    """
    *groups, last = path.split(".")
    owner: type | None = cls
    for name in groups:
        if owner is None:
            break
        entry = entries_of(owner).get(name)
        own = group_class(field_types(owner).get(name))
        owner = own or (entry.settings if entry is not None else None)
    if owner is None or last not in field_types(owner):
        raise ConfigError(f"there is no field {path}")
    return _plain(getattr(owner(), last))


def changed_fields(group: Any) -> list[str]:
    """Return the names of the fields that are not at their defaults."""
    default = type(group)()
    return [
        field.name
        for field in dataclasses.fields(group)
        if getattr(group, field.name) != getattr(default, field.name)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the dotted names and the values of nested plain values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
