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
from typing import Any, Literal

from semanticfl_jax.errors import ConfigError, SemanticFLError


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
      traits: what else the configuration has to know of this kind of thing.
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
          SemanticFLError: if it makes anything else than a `kind`; None: anything goes.
        """
        builder = self.builder
        if isinstance(builder, str):
            module, _, function = builder.partition(":")
            builder = getattr(importlib.import_module(module), function)
        made = builder(self.settings() if settings is None else settings, context)
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
        return f"{self.builder.__module__}:{self.builder.__qualname__}"


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


@dataclasses.dataclass(frozen=True)
class AlgorithmTraits:
    """What the configuration has to know of an algorithm.

    Attributes:
      server_step: why no server optimiser can take the place of its own step; None: one can.
      server_rate: why no server learning rate can scale its step; None: one can.
      server_optimizer: the server optimiser that it is; None: it is none.
      average: why its updates must be averaged, by no other aggregator than the mean; None: they
        need not be.
      silent: whether its clients send nothing at all.
      weights: the weights that it allows besides "auto"; None: all.
      weights_reason: why others are refused.
      sgd: why its clients must optimise with SGD at a constant rate; None: they need not.
      anchors: whether it uses semantic anchors, given its settings.
      guided: whether it is guidance on another algorithm's aggregation.
      classes: why every image must have one class; None: it need not.
      extra: what clients send in a round besides their update, in words; None: nothing. No update
        transform sees it, so that neither transforms nor privacy go with it.
      broadcast: what clients receive in a round besides the model, in words; None: nothing.
      uniform: whether its own weights are the same for all clients, whatever their sizes.
      once: what clients send once, at their first contact, in words; None: nothing.
      personal: whether clients end with models of their own.
    """

    server_step: str | None = None
    server_rate: str | None = None
    server_optimizer: str | None = None
    average: str | None = None
    silent: bool = False
    weights: tuple[str, ...] | None = None
    weights_reason: str = ""
    sgd: str | None = None
    anchors: Callable[[Any], bool] | None = None
    guided: bool = False
    classes: str | None = None
    extra: str | None = None
    once: str | None = None
    broadcast: str | None = None
    uniform: bool = False
    personal: bool = False


@dataclasses.dataclass(frozen=True)
class PartitionTraits:
    """What the configuration has to know of a partition scheme.

    Attributes:
      classes: whether it goes by the samples' classes, and so needs one class an image.
    """

    classes: bool = True


@dataclasses.dataclass(frozen=True)
class TaskTraits:
    """What has to be known of a task before it is built.

    Attributes:
      labels: what an image must have: "class", one class, int32 [n]; "binary", K labels of 0 or 1,
        uint8 [n, K]; "numbers", K numbers, float32 [n, K].
    """

    labels: Literal["class", "binary", "numbers"] = "class"

    def __post_init__(self) -> None:
        if self.labels not in ("class", "binary", "numbers"):
            raise SemanticFLError(
                f"a task's labels must be class, binary or numbers, got {self.labels!r}"
            )


@dataclasses.dataclass(frozen=True)
class AggregatorTraits:
    """What the configuration has to know of an aggregator.

    Attributes:
      weighted: whether it heeds the clients' weights.
      public: whether it needs images of the server's own.
      encodes: whether it changes every update by itself, so that clients can send nothing else.
      codes: whether that decides how many bytes an update takes.
      scale_free: whether updates that differ in their length alone are the same to it.
    """

    weighted: bool = True
    public: bool = False
    encodes: bool = False
    codes: bool = False
    scale_free: bool = False


@dataclasses.dataclass(frozen=True)
class AttackTraits:
    """What the configuration has to know of an attack.

    Attributes:
      forges: whether attackers send other updates than they trained; a function of its settings,
        if these decide.
      classes: why every image must have one class; None: it need not.
    """

    forges: bool | Callable[[Any], bool] = False
    classes: str | None = None


@dataclasses.dataclass(frozen=True)
class TransformTraits:
    """What the configuration has to know of an update transform.

    Attributes:
      compresses: whether it decides how many bytes an update takes.
      scales: whether all that it does to an update is to scale it.
    """

    compresses: bool = False
    scales: bool = False


@dataclasses.dataclass(frozen=True)
class OptimizerTraits:
    """What the configuration has to know of an optimiser.

    Attributes:
      sgd: whether its steps go along the gradient, momentum included.
      decoupled: whether weight decay is no part of the gradient.
    """

    sgd: bool = False
    decoupled: bool = False


@dataclasses.dataclass(frozen=True)
class ServerOptimizerTraits:
    """What the configuration has to know of a server optimiser.

    Attributes:
      rate: what `algorithm.server_learning_rate` is by default.
    """

    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class ScheduleTraits:
    """What the configuration has to know of a schedule.

    Attributes:
      rounds_matter: why the number of all rounds decides the rate of each; None: it does not.
    """

    rounds_matter: str | None = None


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
