"""Markdown of the reference pages, made of the registries, the configuration and the commands.

A page names one of `GENERATED` on a line of its own, `% generated: NAME`, and gets its text when
the site is built, so that no list of names stands in a page as well as in the code. This module
needs the package alone; `generated.py` hands its texts to Sphinx.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import semanticfl_jax
from docs._ext import reproduction
from docs._ext.commands import command_pages
from docs._ext.markdown import code, table
from semanticfl_jax import contexts, registry
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.describe import entry_settings
from semanticfl_jax.config.fields import field_types
from semanticfl_jax.config.values import describe, group_class
from semanticfl_jax.registry import ALGORITHMS, Entry, Registry
from semanticfl_jax.traits import AlgorithmTraits


class Kind(NamedTuple):
    """A kind of thing that is chosen by name.

    Attributes:
      title: heading of its table.
      field: of the configuration that chooses one.
      entries: its registry.
      context: what a builder gets besides its settings.
      returns: what a builder returns, as Markdown.
    """

    title: str
    field: str
    entries: Registry
    context: type
    returns: str


_DATASET = "{py:class}`~semanticfl_jax.data.sources.dataset.ImageDataset`"
_TASK = "{py:class}`~semanticfl_jax.tasks.base.Task`"
_ALGORITHM = "{py:class}`~semanticfl_jax.algorithms.base.Algorithm`"
_OPTAX = (
    "an optax `GradientTransformation` that gives the direction, without rate and sign: "
    "`optax.scale_by_lion()`, not `optax.lion(rate)`"
)

ALGORITHM_KIND = Kind(
    "Algorithms", "algorithm.name", ALGORITHMS, contexts.AlgorithmContext, _ALGORITHM
)
#: All others.
KINDS = (
    Kind("Models", "model.name", registry.MODELS, contexts.ModelContext, "a Flax Linen module"),
    Kind("Data sets", "dataset", registry.DATASETS, contexts.DatasetContext, _DATASET),
    Kind("Tasks", "task", registry.TASKS, contexts.TaskContext, _TASK),
    Kind(
        "Partition schemes",
        "partition.scheme",
        registry.PARTITIONS,
        contexts.PartitionContext,
        "a list of index arrays, one a client",
    ),
    Kind(
        "Aggregators",
        "aggregation.aggregator",
        registry.AGGREGATORS,
        contexts.AlgorithmContext,
        "an `Aggregator` (`semanticfl_jax/algorithms/aggregators.py`)",
    ),
    Kind(
        "Update transforms",
        "aggregation.transforms",
        registry.TRANSFORMS,
        contexts.AlgorithmContext,
        "an `UpdateTransform` (`semanticfl_jax/algorithms/transforms.py`)",
    ),
    Kind(
        "Client optimisers",
        "optimizer.name",
        registry.OPTIMIZERS,
        contexts.AlgorithmContext,
        _OPTAX,
    ),
    Kind(
        "Schedules",
        "optimizer.schedule",
        registry.SCHEDULES,
        contexts.AlgorithmContext,
        "a function of the rounds done, which returns a factor, not negative",
    ),
    Kind(
        "Server optimisers",
        "algorithm.server_optimizer",
        registry.SERVER_OPTIMIZERS,
        contexts.AlgorithmContext,
        _OPTAX,
    ),
    Kind(
        "Privacy",
        "privacy.name",
        registry.PRIVACY,
        contexts.AlgorithmContext,
        "a function from an `Algorithm` to a private one (`semanticfl_jax/privacy/`)",
    ),
    Kind(
        "Attacks",
        "attack.name",
        registry.ATTACKS,
        contexts.AlgorithmContext,
        "an `Attack` (`semanticfl_jax/attacks/base.py`), or None",
    ),
    Kind(
        "Loggers",
        "runtime.loggers",
        registry.LOGGERS,
        contexts.LoggerContext,
        "a {py:class}`~semanticfl_jax.simulation.callbacks.Callback`",
    ),
)

#: Sections of the API page: title, and the modules whose public names stand there.
SECTIONS = (
    ("Running", ("simulation.", "devices.")),
    ("Data", ("data.",)),
    ("Models", ("models.",)),
    ("Tasks", ("tasks.",)),
    ("Algorithms", ("algorithms.",)),
    ("Errors", ("errors",)),
)


# Configuration


def comments(cls: type) -> dict[str, str]:
    """Return the `#:` comments above the fields of a class and of those it derives from, by field.

    One comment may stand above several fields; it belongs to the first.
    """
    found: dict[str, str] = {}
    for each in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        text: list[str] = []
        for line in inspect.getsource(each).splitlines():
            comment = re.match(r"    #: ?(.*)", line)
            field = re.match(r"    (\w+)\s*:(?!:)", line)
            if comment:
                text.append(comment[1])
            elif field:
                found[field[1]] = " ".join(text) or found.get(field[1], "")
                text = []
    return found


def own_fields(cls: type, prefix: str) -> str:
    """Return the table of the plain fields of a configuration class."""
    notes, types = comments(cls), field_types(cls)
    made = cls()
    rows = []
    for name, hint in types.items():
        if group_class(hint) is None and not name.endswith("settings"):
            by_name = any(isinstance(each, Registry) for each in getattr(hint, "__metadata__", ()))
            note = notes.get(name) or ("See [the list](algorithms.md)." if by_name else "")
            rows.append((f"`{prefix}{name}`", describe(hint), code(getattr(made, name)), note))
    return table(("field", "takes", "default", "meaning"), rows)


def configuration() -> str:
    """Return all fields of an experiment, group by group, each with its class."""
    parts = [
        "```{eval-rst}\n.. py:currentmodule:: semanticfl_jax\n```",
        class_of(ExperimentConfig),
        own_fields(ExperimentConfig, ""),
    ]
    for name, hint in field_types(ExperimentConfig).items():
        cls = group_class(hint)
        if cls is None:
            continue
        parts += [f"## {name}", class_of(cls), own_fields(cls, f"{name}.")]
        for inner, inner_hint in field_types(cls).items():
            inner_class = group_class(inner_hint)
            if inner_class is not None:
                public = inner_class.__name__ in semanticfl_jax.__all__
                about = class_of(inner_class) if public else first_line(inner_class)
                parts += [f"### {name}.{inner}", about]
                parts.append(own_fields(inner_class, f"{name}.{inner}."))
        entries = cls.entries() if hasattr(cls, "entries") else {}
        for entry in entries.values():
            if dataclasses.fields(entry.settings):
                title = f"{name}.{entry.name}"
                parts += [f"### {title}", first_line(entry.settings)]
                parts.append(own_fields(entry.settings, f"{title}."))
    return "\n\n".join(parts)


def first_line(thing: Any) -> str:
    """Return the first paragraph of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n\n")[0]


def class_of(cls: type) -> str:
    """Return the class of a group, as something that links lead to."""
    return f"```{{eval-rst}}\n.. autoclass:: semanticfl_jax.{cls.__name__}(...)\n```"


# What is chosen by name


def settings_cell(field: str, entry: Entry) -> str:
    """Return an entry's settings with their defaults."""
    settings = entry_settings(field, entry)
    return ", ".join(f"`{name}` ({code(value).strip('`')})" for name, value in settings.items())


def algorithms() -> str:
    """Return the table of algorithms, and of what each refuses."""
    rows = []
    for name, entry in ALGORITHMS.items():
        rows.append((f"`{name}`", entry.about, settings_cell("algorithm.name", entry)))
    refused = []
    for name, entry in ALGORITHMS.items():
        traits = entry.traits
        reasons = (
            ("another `server_optimizer`", traits.server_step),
            ("`server_learning_rate`", traits.server_rate),
            ("other `weights`", traits.weights_reason),
            ("clients that do not optimise with plain SGD", traits.sgd),
            ("tasks without classes", traits.classes),
        )
        refused += [(f"`{name}`", what, why) for what, why in reasons if why]
    return "\n\n".join(
        [
            table(
                ("`algorithm.name`", "what it is, and what it costs beyond FedAvg", "settings"),
                rows,
            ),
            "## What an algorithm refuses",
            "Combinations that contradict an algorithm's mathematics end with these reasons, "
            "before anything is trained.",
            table(("algorithm", "refuses", "because"), refused),
        ]
    )


def choices() -> str:
    """Return a table for everything else that is chosen by name."""
    parts = []
    for kind in KINDS:
        rows = [
            (f"`{name}`", entry.about, settings_cell(kind.field, entry))
            for name, entry in kind.entries.items()
        ]
        head = (f"`{kind.field}`", "what it is", "settings")
        if not any(row[2] for row in rows):
            head, rows = head[:2], [row[:2] for row in rows]
        parts += [f"## {kind.title}", table(head, rows)]
    return "\n\n".join(parts)


# The Python interface


def api() -> str:
    """Return the public names, section by section, each for autodoc."""
    left = [name for name in semanticfl_jax.__all__ if not name.startswith("register_")]
    left = [name for name in left if not is_config(name)]
    parts = []
    for title, modules in SECTIONS:
        names = [name for name in left if module_of(name).startswith(modules)]
        left = [name for name in left if name not in names]
        parts += [f"## {title}", *map(autodoc, sorted(names, key=functions_first))]
    if left != ["load_plugins"]:
        parts += ["## More", *(autodoc(name) for name in left if name != "load_plugins")]
    return "\n\n".join(parts)


def functions_first(name: str) -> tuple[bool, str]:
    """Return a key that sorts functions before classes, and each by name."""
    return isinstance(getattr(semanticfl_jax, name), type), name.lower()


def module_of(name: str) -> str:
    """Return the module of a public name, without the package's."""
    return getattr(semanticfl_jax, name).__module__.removeprefix("semanticfl_jax.")


def is_config(name: str) -> bool:
    """Return whether a public name is a group of the configuration."""
    thing = getattr(semanticfl_jax, name)
    return isinstance(thing, type) and module_of(name).startswith("config.")


def autodoc(name: str) -> str:
    """Return autodoc's directive for a public name."""
    thing = getattr(semanticfl_jax, name)
    directive = "autofunction"
    options = ""
    if isinstance(thing, type):
        directive = "autoexception" if issubclass(thing, BaseException) else "autoclass"
        options = "\n   :members:"
    return f"```{{eval-rst}}\n.. {directive}:: semanticfl_jax.{name}{options}\n```"


def registering() -> str:
    """Return the registering functions, what their builders get, and the groups of settings."""
    kinds = {id(kind.entries): kind for kind in (ALGORITHM_KIND, *KINDS)}
    rows = []
    for name in semanticfl_jax.__all__:
        if name.startswith("register_"):
            kind = kinds[id(getattr(semanticfl_jax, name).__self__)]
            context = f"{{py:class}}`~semanticfl_jax.contexts.{kind.context.__name__}`"
            rows.append((f"`{name}`", f"`{kind.field}`", context, kind.returns))
    used = sorted({row[2] for row in rows})
    parts = [
        autodoc("register_model"),
        table(("function", "chosen by", "its builder's context", "its builder returns"), rows),
        autodoc("load_plugins"),
        "### Contexts",
    ]
    for role in used:
        path = role.split("`")[1].removeprefix("~")
        parts.append(f"```{{eval-rst}}\n.. autoclass:: {path}\n   :members:\n```")
    parts.append("### Traits of an algorithm")
    traits = f"{AlgorithmTraits.__module__}.{AlgorithmTraits.__name__}"
    parts.append(f"```{{eval-rst}}\n.. autoclass:: {traits}\n```")
    return "\n\n".join(parts)


GENERATED: dict[str, Callable[[], str]] = {
    "algorithms": algorithms,
    "api": api,
    "choices": choices,
    "commands": command_pages,
    "configuration": configuration,
    "evaluations": reproduction.evaluations,
    "published": reproduction.published,
    "reproduced_methods": reproduction.methods,
    "registering": registering,
    "scales": reproduction.scales,
}
