"""Methods to compare: an algorithm with settings of its own, as text; and the runs they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.overrides import combine, parse
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import ALGORITHMS

#: Settings by dotted path.
Settings = Mapping[str, Any]


def parse_settings(words: Sequence[str], text: str, where: str) -> dict[str, Any]:
    """Return settings {field: value} of words that are FIELD=VALUE.

    Args:
      words: such as "partition.alpha=0.05".
      text: that they are part of, for messages.
      where: what holds it, likewise.

    Raises:
      ConfigError: for a word that is not FIELD=VALUE, an unknown field, or a value of another type.
    """
    values = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{where}: {word!r} in {text!r} is not FIELD=VALUE")
        values[field] = parse(ExperimentConfig, field, value)
    return values


def parse_methods(text: str) -> dict[str, dict[str, object]]:
    """Return names and settings {field: value} of methods written as `--methods` takes them.

    Raises:
      ConfigError: for a setting that is not FIELD=VALUE, an unknown field, or a method named twice.
    """
    methods: dict[str, dict[str, object]] = {}
    for method in filter(None, map(str.strip, text.split(";"))):
        algorithm, *words = method.split()
        name = algorithm
        for word in words:
            field, _, value = word.partition("=")
            name += f"-{field.rpartition('.')[-1]}-{value}".replace("/", "_")
        if name in methods:
            raise ConfigError(f"--methods: {name} is there twice")
        methods[name] = {"algorithm.name": algorithm, **parse_settings(words, method, "--methods")}
    return methods


def parse_seeds(seeds: Sequence[str]) -> list[int]:
    """Return the seeds that a flag --seeds lists, each once.

    Raises:
      ConfigError: unless they are whole numbers, one at least.
    """
    wrong = [seed for seed in seeds if not (seed.isascii() and seed.isdecimal())]
    if wrong or not seeds:
        got = repr(wrong[0]) if wrong else "none"
        raise ConfigError(f"--seeds must be whole numbers, got {got}")
    return list(dict.fromkeys(map(int, seeds)))


def guide(
    methods: dict[str, dict[str, object]], guided: str | None
) -> dict[str, dict[str, object]]:
    """Return methods with and without guidance: `guided` is no, yes, both, or None (as it is).

    SemanticFL is guided anyway, and stays as it is; guided methods are named METHOD-guided.
    """
    if guided is None:
        return methods
    chosen = {}
    for name, settings in methods.items():
        entry = ALGORITHMS.get(str(settings["algorithm.name"]))
        if entry is not None and entry.traits.guided:
            chosen[name] = settings
            continue
        if guided in ("no", "both"):
            chosen[name] = {**settings, "guidance.enabled": False}
        if guided in ("yes", "both"):
            chosen[f"{name}-guided"] = {**settings, "guidance.enabled": True}
    return chosen


def plan_runs(
    values: Mapping[str, Any],
    optional: Settings,
    methods: Mapping[str, Settings],
    seeds: Sequence[int],
) -> dict[str, ExperimentConfig]:
    """Return the runs of methods, {METHOD-seedN: configuration}, all methods of a seed together.

    Args:
      values: nested plain values, as a configuration file gives them.
      optional: settings that go to the methods in which they have an effect, and give way to those
        of the method.
      methods: settings by name.
      seeds: of the runs.

    Raises:
      ConfigError: for a run that is not valid.
    """
    return {
        f"{name}-seed{seed}": combine(
            ExperimentConfig, values, {**settings, "seed": seed}, optional=optional
        )
        for seed in seeds
        for name, settings in methods.items()
    }


def require_effect(
    values: Mapping[str, Any],
    optional: Settings,
    methods: Sequence[Settings],
    asked: Settings | None = None,
) -> None:
    """Raise `ConfigError` for an optional setting that no method heeds.

    Args:
      values: as of `plan_runs`.
      optional: as of `plan_runs`.
      methods: settings of each.
      asked: those of `optional` that must have an effect; by default all.
    """
    for path, value in (optional if asked is None else asked).items():
        problems = []
        for settings in methods:
            try:
                combine(ExperimentConfig, values, {path: value, **settings}, optional=optional)
            except ConfigError as error:
                problems.append(error)
        if len(problems) == len(methods):
            raise problems[0]


def plan_methods(
    values: Mapping[str, Any],
    overrides: Settings,
    methods: Mapping[str, Settings],
    seeds: Sequence[int],
) -> dict[str, ExperimentConfig]:
    """Return the runs of a comparison, as `plan_runs` does.

    Args:
      values: nested plain values, as a configuration file gives them.
      overrides: settings of the command line, which go to the methods in which they have an effect:
        `algorithm.moon.mu` to MOON.
      methods: settings by name.
      seeds: of the runs.

    Raises:
      ConfigError: without methods, for a run that is not valid, or for a setting of the command
        line without an effect in any of them.
    """
    if not methods:
        raise ConfigError("--algorithms, or --methods, must name one at least")
    runs = plan_runs(values, overrides, methods, seeds)
    require_effect(values, overrides, list(methods.values()))
    return runs
