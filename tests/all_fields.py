"""All fields of a configuration class, those of everything that can be chosen by name included."""

from collections.abc import Iterator
from typing import Any

from semanticfl_jax.config.fields import Choosing, field_types, group_class, settings_fields


def fields(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names, as on the command line, and the types of all fields of `cls`.

    A setting of several entries that share its name is there once for each.
    """
    choices = settings_fields(cls)
    for name, hint in field_types(cls).items():
        if name in choices:
            for entry in choices[name][1].values():
                yield from fields(entry.settings, f"{prefix}{name}.")
        elif group_class(hint) is None:
            yield prefix + name, hint
        else:
            yield from fields(group_class(hint), f"{prefix}{name}.")
    if issubclass(cls, Choosing):
        for name, entry in cls.entries().items():
            yield from fields(entry.settings, f"{prefix}{name}.")
