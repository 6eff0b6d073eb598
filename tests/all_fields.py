"""All fields of a configuration class, and of all built-in entries that it can choose."""

import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from semanticfl_jax.config.fields import Choosing, field_types, settings_fields
from semanticfl_jax.config.values import group_class
from tests.built_in import built_in


class Field(NamedTuple):
    """A field, as on the command line.

    Attributes:
      name: dotted.
      hint: its type.
      chosen: what must be chosen for it to be there: names by dotted field.
    """

    name: str
    hint: Any
    chosen: Mapping[str, Any]


def all_fields(
    cls: type, prefix: str = "", chosen: Mapping[str, Any] | None = None
) -> Iterator[Field]:
    """Yield all fields of `cls`; a setting that several entries have is there once for each."""
    chosen, choices = chosen or {}, settings_fields(cls)
    for name, hint in field_types(cls).items():
        if name in choices:
            field, registry = choices[name]
            for entry in map(registry.get, built_in(registry)):
                also = {**chosen, f"{prefix}{field}": entry.name}
                yield from all_fields(entry.settings, f"{prefix}{name}.", also)
        elif group_class(hint) is None:
            yield Field(prefix + name, hint, chosen)
        else:
            yield from all_fields(group_class(hint), f"{prefix}{name}.", chosen)
    if issubclass(cls, Choosing):
        for field, registry in cls.registries.items():
            several = typing.get_origin(field_types(cls)[field]) is tuple
            for entry in map(registry.get, built_in(registry)):
                also = {**chosen, f"{prefix}{field}": (entry.name,) if several else entry.name}
                yield from all_fields(entry.settings, f"{prefix}{entry.name}.", also)
