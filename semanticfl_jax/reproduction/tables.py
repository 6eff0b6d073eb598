"""The tables that can be reproduced, read from their file, and the runs of each."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.methods import Settings, parse_settings, plan_runs, require_effect
from semanticfl_jax.errors import ConfigError

#: The tables that come with the package.
BUILT_IN = Path(__file__).with_name("tables.toml")

#: Fields that a data set's configuration decides at every scale.
_OF_THE_DATA = ("dataset", "dataset_settings", "augmentation", "task", "task_settings")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a table: its cell, its seed, and its configuration."""

    name: str
    column: str
    method: str
    seed: int
    config: ExperimentConfig


@dataclasses.dataclass(frozen=True)
class Table:
    """A table at a scale: what is run for it, and what is published.

    Attributes:
      name: of the table.
      about: it in words.
      scale: name of the scale.
      protocol: the scale in words.
      values: nested values of the configuration that all runs begin with.
      settings: of the scale, for the runs in which they have an effect.
      columns: settings of each, by name.
      methods: likewise.
      published: {method: {column: accuracy in per cent}}, the best round's.
      sources: of the published numbers, in words.
      costs: of a training image beside FedAvg's, by method; 1 where there is none.
      kept: models that a run keeps for every client, by method; 0 where there is none.
    """

    name: str
    about: str
    scale: str
    protocol: str
    values: Mapping[str, Any]
    settings: Settings
    columns: Mapping[str, Settings]
    methods: Mapping[str, Settings]
    published: Mapping[str, Mapping[str, float]]
    sources: str
    costs: Mapping[str, float]
    kept: Mapping[str, float]

    def runs(
        self, seeds: Sequence[int], asked: Settings, default: Settings | None = None
    ) -> list[Run]:
        """Return the table's runs, all cells with the first seed before any with the second.

        Args:
          seeds: of the runs.
          asked: settings of the user's, for the runs in which they have an effect; they take the
            place of the scale's.
          default: settings that give way to both, likewise.

        Raises:
          ConfigError: for a setting that the table decides itself, or that no run heeds.
        """
        decided = {"seed": "--seeds", "algorithm.name": "--methods"}
        decided |= {field: "--columns" for each in self.columns.values() for field in each}
        for field in asked:
            if field in decided:
                raise ConfigError(f"{field} is the table's; choose with {decided[field]}")
        together = {**(default or {}), **self.settings, **asked}
        found = []
        for seed in seeds:
            for column, part in self.columns.items():
                methods = {name: {**own, **part} for name, own in self.methods.items()}
                configs = plan_runs(self.values, together, methods, [seed])
                for method, config in zip(methods, configs.values(), strict=True):
                    name = f"{column}-{method}-seed{seed}"
                    found.append(Run(name, column, method, seed, config))
        cells = [{**m, **c} for c in self.columns.values() for m in self.methods.values()]
        require_effect(self.values, together, cells, asked)
        return found


class Tables:
    """What a file of tables holds.

    Args:
      path: of the file; None: the package's own (`tables.toml`), which says how one is written.

    Raises:
      ConfigError: for a file that cannot be read, or lacks a part.
    """

    def __init__(self, path: Path | None = None):
        self.path = BUILT_IN if path is None else path
        try:
            self._parts = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} is no file of tables: {error}") from None
        for part in ("scales", "datasets", "columns", "methods", "tables"):
            if not isinstance(self._parts.get(part), dict):
                raise ConfigError(f"{self.path} must have [{part}.NAME]")

    def entries(self, part: str) -> Mapping[str, Any]:
        """Return what the file has under [part.NAME], or [part], by name."""
        return self._parts.get(part, {})

    def describe(self) -> str:
        """Return the tables and the scales, a line each."""
        lines = []
        for part in ("tables", "scales"):
            width = max(map(len, self.entries(part)))
            lines.append(f"{part}:")
            lines += [f"  {n:{width}}  {e['about']}" for n, e in self.entries(part).items()]
        return "\n".join(lines)

    def table(
        self,
        name: str,
        scale: str,
        configs: Callable[[str], Mapping[str, Any]],
        *,
        columns: Sequence[str] = (),
        methods: Sequence[str] = (),
    ) -> Table:
        """Return a table at a scale.

        Args:
          name: of the table.
          scale: name of the scale.
          configs: returns the nested values of a configuration by its name.
          columns: in place of the table's own; any that the file has.
          methods: likewise.

        Raises:
          ConfigError: for a name that the file does not have.
        """
        about = self._find("tables", name, "--table")
        size = self._find("scales", scale, "--scale")
        dataset = self._find("datasets", about["dataset"], f"[tables.{name}] dataset")
        values = configs(dataset["config"])
        scaled = dataset.get("scaled", True)
        if scaled and "config" in size:
            own = {field: values[field] for field in _OF_THE_DATA if field in values}
            values = {**configs(size["config"]), **own}
        text = size.get("settings", "") if scaled else ""
        return Table(
            name=name,
            about=about["about"],
            scale=scale,
            protocol=size["about"] if scaled else "the same at every scale",
            values=values,
            settings=parse_settings(text.split(), text, f"[scales.{scale}]"),
            columns={each: self._column(each) for each in columns or about["columns"]},
            methods={each: self._method(each) for each in methods or self._set(about["methods"])},
            published=about.get("published", {}),
            sources=about.get("sources", ""),
            costs=self.entries("costs"),
            kept=self.entries("kept"),
        )

    def _find(self, part: str, name: str, flag: str) -> Any:
        known = self.entries(part)
        if name not in known:
            raise ConfigError(f"{flag} must be one of {', '.join(known)}, got {name!r}")
        return known[name]

    def _set(self, methods: str | Sequence[str]) -> Sequence[str]:
        if isinstance(methods, str):
            return self._find("sets", methods, "methods")
        return methods

    def _column(self, name: str) -> dict[str, Any]:
        text = self._find("columns", name, "--columns")
        return parse_settings(text.split(), text, f"[columns] {name}")

    def _method(self, name: str) -> dict[str, Any]:
        """Return the settings of a method, on top of those of the one that it begins with."""
        text = self._find("methods", name, "--methods")
        base, *words = text.split()
        own = parse_settings(words, text, f"[methods] {name}")
        if base.startswith("@"):
            return {**self._method(base[1:]), **own}
        return {"algorithm.name": base, **own}
