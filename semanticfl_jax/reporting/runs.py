"""Finished runs, read back from their directories and grouped into methods."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config.fields import flatten
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object
from semanticfl_jax.reporting.labels import label_methods
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.spread import some_of
from semanticfl_jax.reporting.writers.metrics import read_metrics, summarize

#: Fields, or groups of them, that tell seeds and machines apart, not methods.
NOT_METHOD = ("seed", "data_dir", "runtime", "checkpoint_every")

#: Groups of config.json that methods are named by.
_GROUPS = ("algorithm", "guidance")


def tells_methods_apart(field: str) -> bool:
    """Return whether runs that differ in a field, a dotted name, are different methods."""
    return field.split(".")[0] not in NOT_METHOD


class ReportError(SemanticFLError):
    """The given directories cannot be compared; the message names them and says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished run: its directory, configuration, summary and rows of metrics."""

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Method:
    """Runs that differ in the seed alone, by seed, under a label unique in the comparison."""

    label: str
    runs: tuple[Run, ...]

    def values(self, name: str) -> list[float]:
        """Return the figure `name` of every run's summary, without those that lack it."""
        return [run.summary[name] for run in self.runs if run.summary.get(name) is not None]

    def spread(self, metric: Metric, name: str) -> str:
        """Return mean ± standard deviation of a figure, and of how many runs, if not of all."""
        values = self.values(name)
        return metric.write_spread(values) + some_of(len(values), len(self.runs))

    def by_seed(self, name: str) -> dict[Any, float]:
        """Return the same by the runs' seeds."""
        return {
            run.config.get("seed"): run.summary[name]
            for run in self.runs
            if run.summary.get(name) is not None
        }


def load_run(directory: str | os.PathLike) -> Run:
    """Read a finished run.

    Raises:
      ReportError: if the directory is missing, holds no run, or the run is not finished.
    """
    path = Path(directory)
    if not path.is_dir():
        raise ReportError(f"{path}: no such directory")
    if not (path / "config.json").is_file():
        raise ReportError(f"{path}: not a run (it has no config.json)")
    if not (path / "summary.json").is_file():
        raise ReportError(f"{path}: not finished (it has no summary.json)")
    try:
        config = read_json_object(path / "config.json")
        summary = read_json_object(path / "summary.json")
        rows = read_metrics(path)
        config = with_objects(config, summary, read_bound(path))
    except ValueError as error:
        raise ReportError(f"{path}: damaged ({error})") from error
    trained = max((row["round"] for row in rows), default=0)
    wanted = config.get("rounds", trained)
    groups = [name for name in _GROUPS if not isinstance(config.get(name, {}), dict)]
    if groups or not isinstance(wanted, int):
        raise ReportError(
            f"{path}: damaged (in config.json {' and '.join(groups) or 'rounds'} is of another "
            "kind than a run writes)"
        )
    try:
        figures = summarize(rows, metric=Metric.of(summary))
    except SemanticFLError as error:
        raise ReportError(f"{path}: damaged (in metrics.jsonl {error})") from None
    wrong = [name for name in figures if not isinstance(summary.get(name), int | float | None)]
    wrong += [name for name in ("privacy",) if not isinstance(summary.get(name), dict | None)]
    if wrong:
        raise ReportError(
            f"{path}: damaged (in summary.json {' and '.join(wrong)} is of another kind than a run "
            "writes)"
        )
    summary = {**figures, **summary}
    if diverged(summary):
        raise ReportError(f"{path}: not finished (it diverged in round {trained})")
    if not ended(summary, trained, wanted):
        done = f"{trained} of {wanted} rounds in metrics.jsonl"
        stale = f", summary.json is of {summary['rounds']}" if trained >= wanted else ""
        raise ReportError(f"{path}: not finished ({done}{stale})")
    return Run(path, config, summary, rows)


def ended(summary: Mapping[str, Any], trained: int, wanted: int) -> bool:
    """Return whether a run is over: its rounds are done, its budget is used up, or it was stopped.

    One that was stopped because it diverged is not, even in its last round: it can be resumed.

    Args:
      summary: the newest that the run wrote; it may be of fewer rounds than were done since.
      trained: rounds that have a row.
      wanted: rounds of the whole run.
    """
    done = summary.get("rounds")
    if done is None or done < trained or diverged(summary):
        return False
    return used_up(summary) or stopped_early(summary) or trained >= wanted


def diverged(summary: Mapping[str, Any]) -> bool:
    """Return whether the run was stopped because it diverged."""
    return "finished" in summary and summary["finished"] is None


def used_up(summary: Mapping[str, Any]) -> bool:
    """Return whether a run is over because its privacy budget is, whatever rounds were wanted."""
    return bool((summary.get("privacy") or {}).get("used_up", False))


def stopped_early(summary: Mapping[str, Any]) -> bool:
    """Return whether a run is over because the user's code ended it, by `Simulation.stop`."""
    return bool(summary.get("stopped_early", False))


def read_bound(path: Path) -> dict[str, Any]:
    """Return the run.json of a directory, to which it belongs; {} if it has none."""
    return read_json_object(path / "run.json", missing_ok=True)


def with_objects(
    config: dict[str, Any], summary: Mapping[str, Any], bound: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a run's configuration with the algorithm, the model and the images that it had.

    Those that were given from Python are in its summary and in run.json alone. Of an algorithm that
    is its name, by which two with other settings must differ; of a model what its `repr` shows.

    Args:
      config: its config.json.
      summary: its summary; empty before its end.
      bound: its run.json; {} without a directory.
    """
    for group in ("algorithm", "model"):
        there, had = config.get(group, {}), summary.get(group, bound.get(group))
        if isinstance(had, str) and isinstance(there, dict) and there.get("name", had) != had:
            config = {**config, group: {"name": had}}
    if isinstance(bound.get("model"), str):
        text = without_addresses(bound["model"])
        name = summary.get("model", text.partition("(")[0])
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        config = {**config, "model": {"name": name, "repr": digest}}
    images = summary.get("dataset")
    if isinstance(images, str) and config.get("dataset") not in (None, images):
        config = {**config, "dataset": images, "data": bound.get("data")}
    return config


def without_addresses(text: str) -> str:
    """Return a `repr` in one line, without addresses in memory, which differ between processes."""
    return " ".join(re.sub(r" at 0x[0-9a-f]+", "", text).split())


def load_runs(directories: Sequence[str | os.PathLike]) -> list[Run]:
    """Read several runs; a directory given twice counts once.

    Raises:
      ReportError: naming every directory that cannot be used, or when none is given.
    """
    if not directories:
        raise ReportError("no run directories given")
    runs, problems = [], []
    for directory in {Path(each).resolve(): each for each in directories}.values():
        try:
            runs.append(load_run(directory))
        except ReportError as error:
            problems.append(str(error))
    if problems:
        raise ReportError("cannot compare:\n  " + "\n  ".join(problems))
    return runs


def group(runs: Sequence[Run]) -> list[Method]:
    """Group runs by everything but the seed, in the order methods first appear.

    `labels.py` says how methods are labelled.

    Raises:
      ReportError: if two runs have the same configuration and the same seed.
    """
    groups: dict[str, list[Run]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for run in runs:
        method = {name: value for name, value in flatten(run.config) if tells_methods_apart(name)}
        key = json.dumps(method, sort_keys=True)
        groups.setdefault(key, []).append(run)
        fields.setdefault(key, method)
    for members in groups.values():
        by_seed: dict[Any, Run] = {}
        for run in members:
            other = by_seed.setdefault(run.config.get("seed"), run)
            if other is not run:
                raise ReportError(f"{other.path} and {run.path} are the same run (same seed)")
        members.sort(key=lambda run: run.config.get("seed", 0))
    labels = label_methods(list(fields.values()))
    return [
        Method(label, tuple(members))
        for label, members in zip(labels, groups.values(), strict=True)
    ]


def differing_fields(runs: Sequence[Run]) -> list[str]:
    """Return dotted names of the configuration fields that are not equal in all runs, sorted."""
    flat = [dict(flatten(run.config)) for run in runs]
    names = sorted(set().union(*flat))
    return [name for name in names if any(f.get(name) != flat[0].get(name) for f in flat)]
