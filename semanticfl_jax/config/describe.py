"""The registries and the configuration's fields as text: what a command's --help shows."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from semanticfl_jax.config.algorithm import AlgorithmConfig, knobs
from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.fields import flatten, settings_fields, to_dict
from semanticfl_jax.registry import (
    AGGREGATORS,
    ALGORITHMS,
    ATTACKS,
    DATASETS,
    LOGGERS,
    MODELS,
    OPTIMIZERS,
    PARTITIONS,
    PRIVACY,
    SCHEDULES,
    SERVER_OPTIMIZERS,
    TASKS,
    TRANSFORMS,
    Entry,
    Registry,
)

_WIDTH = 96
#: Fields whose settings stand in a field of their own, by name of the first.
_OWN_SETTINGS = {field: name for name, (field, _) in settings_fields(ExperimentConfig).items()}
_KINDS: tuple[tuple[str, str, Registry], ...] = (
    ("Algorithms", "algorithm.name", ALGORITHMS),
    ("Models", "model.name", MODELS),
    ("Data sets", "dataset", DATASETS),
    ("Tasks", "task", TASKS),
    ("Partitions", "partition.scheme", PARTITIONS),
    ("Optimizers", "optimizer.name", OPTIMIZERS),
    ("Server optimizers", "algorithm.server_optimizer", SERVER_OPTIMIZERS),
    ("Schedules", "optimizer.schedule", SCHEDULES),
    ("Aggregators", "aggregation.aggregator", AGGREGATORS),
    ("Update transforms", "aggregation.transforms", TRANSFORMS),
    ("Privacy", "privacy.name", PRIVACY),
    ("Attacks", "attack.name", ATTACKS),
    ("Loggers", "runtime.loggers", LOGGERS),
)


def describe_choices() -> str:
    """Return all fields, and all that is chosen by name, with its paper, its cost and settings."""
    lines = [*_fields(), ""]
    for title, field, registry in _KINDS:
        lines += [f"{title} (--config.{field}=NAME):", ""]
        for name, entry in registry.items():
            lines += _entry(field, name, entry)
        if registry is ALGORITHMS:
            lines += [
                "",
                "With any of them: --config.guidance.enabled=true (semantic guidance). Where the",
                "algorithm leaves them open: --config.algorithm.weights=size|uniform|disco and",
                "--config.algorithm.server_optimizer=" + "|".join(SERVER_OPTIMIZERS) + ".",
            ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _fields() -> list[str]:
    """Return all fields with their defaults, a paragraph a group; settings of choices are below."""
    groups: dict[str, list[str]] = {"": []}
    choices = {name for _, _, registry in _KINDS for name in registry}
    for path, value in flatten(to_dict(ExperimentConfig())):
        group, _, name = path.rpartition(".")
        if not choices & set(path.split(".")[1:]):
            groups.setdefault(group, []).append(f"{name}={_plain(value)}")
    lines = ["Fields (--config.FIELD=VALUE), with their defaults:", ""]
    for group, names in groups.items():
        first = f"  {group}." if group else "  "
        text = first + (" ." if group else " ").join(names)
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)
    return lines


def _entry(field: str, name: str, entry: Entry) -> list[str]:
    indent = " " * 15
    first = f"  {name:12} " if len(name) <= 12 else f"  {name}\n{indent}"
    lines = textwrap.wrap(entry.about, _WIDTH, initial_indent=first, subsequent_indent=indent)
    lines = lines or [first.rstrip()]
    group = field.partition(".")[0]
    settings = [f"{key}={_plain(value)}" for key, value in entry_settings(field, entry).items()]
    if settings:
        group = _OWN_SETTINGS.get(field, group)
        text = f"--config.{group}." + " .".join(settings)
        lines += textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
    return lines


def table(field: str, registry: Registry) -> str:
    """Return the entries of a registry that come with the project, as a table for the README."""
    lines = [f"| `{field}` | about | settings (default) |", "|---|---|---|"]
    for name, entry in registry.items():
        if entry.source.startswith("semanticfl_jax."):
            made = entry.settings()
            values = [(f.name, _plain(getattr(made, f.name))) for f in dataclasses.fields(made)]
            knobs = ", ".join(f"`{knob}` ({value})" for knob, value in values)
            lines.append(f"| `{name}` | {entry.about} | {knobs} |")
    return "\n".join(lines)


def entry_settings(field: str, entry: Entry) -> dict[str, Any]:
    """Return an entry's settings with their defaults, by their names within the field's group."""
    if field == "algorithm.name":
        return knobs(entry.name)
    if field == "algorithm.server_optimizer":
        return {name: getattr(AlgorithmConfig(), name) for name in entry.uses}
    prefix = "" if field in _OWN_SETTINGS else f"{entry.name}."
    made = entry.settings()
    return {f"{prefix}{f.name}": getattr(made, f.name) for f in dataclasses.fields(made)}


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
