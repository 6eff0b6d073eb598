"""What is chosen by name: models, algorithms, data sets, partitions, aggregators, transforms, ...

An entry is a builder, a dataclass of settings and one line about it. The configuration, `--help`,
the error messages and the tables of the documentation ask the registries; there is no second list.
Built-in entries name their builder as "module:function", which is imported when it is needed, so
that a configuration is checked without JAX. A plug-in registers its own:

    @semanticfl_jax.register_model("vit", settings=ViTSettings, about="A small vision transformer")
    def vit(settings, context):
        return ViT(context.num_classes, depth=settings.depth)

A builder gets its settings and a context (`contexts.py`): what is known by then.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.traits import (
    AggregatorTraits,
    AlgorithmTraits,
    AttackTraits,
    OptimizerTraits,
    PartitionTraits,
    ScheduleTraits,
    ServerOptimizerTraits,
    TaskTraits,
    TransformTraits,
)


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of an entry that has none."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing that can be chosen.

    Attributes:
      name: what the configuration calls it.
      builder: `(settings, context)` -> the thing; or where to import that from, "module:function".
      settings: dataclass whose fields all have defaults.
      about: one line about it, with its paper.
      uses: fields of the configuration group that it heeds besides its own settings.
      traits: what else the configuration has to know of this kind of thing (`traits.py`).
    """

    name: str
    builder: Callable[[Any, Any], Any] | str
    settings: type = NoSettings
    about: str = ""
    uses: tuple[str, ...] = ()
    traits: Any = None

    def build(self, settings: Any, context: Any, kind: type | None = None) -> Any:
        """Return what the builder makes; `settings` None stands for the defaults.

        Raises:
          SemanticFLError: if it makes anything else than a `kind` (None: anything goes), or if a
            user's own builder fails.
        """
        builder = self.builder
        if isinstance(builder, str):
            module, _, function = builder.partition(":")
            builder = getattr(importlib.import_module(module), function)
        try:
            made = builder(self.settings() if settings is None else settings, context)
        except Exception as error:
            if isinstance(error, SemanticFLError) or self.source.startswith("semanticfl_jax."):
                raise
            raise SemanticFLError(
                f"the builder of {self.name}, {self.source}, fails: {type(error).__name__}: {error}"
            ) from error
        if kind is not None and not isinstance(made, kind):
            raise SemanticFLError(
                f"the builder of {self.name}, {self.source}, must return a {kind.__name__}, got "
                f"{made!r:.200}"
            )
        return made

    @property
    def source(self) -> str:
        """Where the builder is defined, as "module:function"."""
        if isinstance(self.builder, str):
            return self.builder
        made = self.builder if hasattr(self.builder, "__qualname__") else type(self.builder)
        return f"{made.__module__}:{made.__qualname__}"


class Registry(Mapping[str, Entry]):
    """Entries of one kind by name, in the order in which they were registered.

    Args:
      kind: what an entry is, in words ("algorithm").
      traits: dataclass of the traits that entries of this kind have; None: they have none.
      reserved: names that no entry can have: fields of the same configuration group.
    """

    def __init__(self, kind: str, traits: type | None = None, reserved: tuple[str, ...] = ()):
        self.kind = kind
        self.reserved = {"name", "settings", *reserved}
        self._traits = traits
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self:
            raise KeyError(name)
        return self._entries[name]

    # Two registries are never the same one.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):  # what a file holds may not even be hashable
            return False
        if name not in self._entries:
            _load_installed()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        _load_installed()
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def register(
        self,
        name: str,
        builder: Callable[[Any, Any], Any] | str | None = None,
        *,
        settings: type | None = None,
        about: str = "",
        uses: tuple[str, ...] = (),
        **traits: Any,
    ) -> Any:
        """Add an entry; without `builder`, return a decorator for it.

        Registering a builder again under the same name, as a notebook's cell does, replaces it.

            @sfl.register_model("vit", settings=ViTSettings, about="A small vision transformer")
            def vit(settings, context):
                return ViT(context.num_classes, depth=settings.depth)

        Args:
          name: what the configuration calls it: lower-case letters, digits and "_".
          builder: `(settings, context)` -> the thing; or "module:function", imported at need.
          settings: a dataclass whose fields all have defaults; None: there are none.
          about: one line about it, with its paper, for `--help` and tables.
          uses: fields of the configuration group that it heeds besides its settings.
          **traits: what else the configuration has to know of this kind of thing.

        Raises:
          SemanticFLError: for a name that is taken or cannot be a field's, or for settings that are
            no dataclass whose fields all have defaults.
        """
        if builder is None:

            def decorate(function):
                self.register(name, function, settings=settings, about=about, uses=uses, **traits)
                return function

            return decorate
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in self.reserved:
            raise SemanticFLError(
                f"a {self.kind}'s name must be lower-case letters, digits and '_', and none of "
                f"{', '.join(sorted(self.reserved))}, got {name!r}"
            )
        if settings is not None:
            _check_settings(self.kind, name, settings)
        entry = Entry(
            name,
            builder,
            settings or NoSettings,
            about,
            uses,
            self._traits(**traits) if self._traits else None,
        )
        if self._traits is None and traits:
            raise TypeError(f"a {self.kind} has no {', '.join(traits)}")
        there = self._entries.get(name)
        if there is not None and there.source != entry.source:
            raise SemanticFLError(
                f"there is a {self.kind} {name!r} already, from {there.source}; choose another name"
            )
        self._entries[name] = entry
        return builder

    def check(self, name: Any, field: str) -> None:
        """Raise `ConfigError` unless `name` is an entry; `field` is where it stands."""
        if name in self:
            return
        near = difflib.get_close_matches(str(name).lower(), self._entries, n=1)
        hint = f". Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{field} must be one of {', '.join(self)}, got {name!r}{hint}")


def _load_installed() -> None:
    """Import the plug-ins of installed packages; a name may be one of theirs."""
    from semanticfl_jax import plugins  # not before: plug-ins register here

    plugins.load_installed()


def _check_settings(kind: str, name: str, settings: type) -> None:
    problem = f"settings of the {kind} {name!r} must be a dataclass"
    if not (isinstance(settings, type) and dataclasses.is_dataclass(settings)):
        raise SemanticFLError(f"{problem}, got {settings!r}")
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    for field in dataclasses.fields(settings):
        if field.init and (field.default, field.default_factory) == missing:
            raise SemanticFLError(f"{problem} with defaults; field {field.name} has none")


_OPTIMIZER_FIELDS = ("schedule", "server_schedule", "warmup_rounds", "epoch_decay")

MODELS = Registry("model", reserved=("width", "norm"))
ALGORITHMS = Registry("algorithm", AlgorithmTraits)
DATASETS = Registry("data set")
PARTITIONS = Registry("partition scheme", PartitionTraits)
TASKS = Registry("task", TaskTraits)
AGGREGATORS = Registry("aggregator", AggregatorTraits, reserved=("aggregator", "transforms"))
TRANSFORMS = Registry("update transform", TransformTraits, reserved=("aggregator", "transforms"))
ATTACKS = Registry("attack", AttackTraits, reserved=("share", "entry"))
PRIVACY = Registry(
    "privacy mechanism", reserved=("noise_multiplier", "target_epsilon", "delta", "entry")
)
OPTIMIZERS = Registry("optimizer", OptimizerTraits, _OPTIMIZER_FIELDS)
SCHEDULES = Registry("schedule", ScheduleTraits, _OPTIMIZER_FIELDS)
SERVER_OPTIMIZERS = Registry("server optimizer", ServerOptimizerTraits)
LOGGERS = Registry("logger", reserved=("loggers", "num_devices", "conv", "tuning"))
