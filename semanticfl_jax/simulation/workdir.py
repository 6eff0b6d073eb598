"""The directory of a run: whose it is, and which files it holds.

A directory is bound by what decides a run's results: fields of the configuration, and hashes of the
data, the partition and whatever was given as an object. Paths, devices and `rounds` may change; a
run can be made longer, not shorter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import __version__
from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.config.fields import Choosing, flatten
from semanticfl_jax.files import write_json

CONFIG, BOUND, SUMMARY, PARTITION = "config.json", "run.json", "summary.json", "partition.npz"
ANCHORS, TUNING, MODEL = "anchors.npz", "tuning.json", "model.safetensors"
CLIENT_TESTS = "client_tests.npz"
CHECKPOINTS, PLOTS = "checkpoints", "plots"


def check(workdir: str | os.PathLike, config: ExperimentConfig, claimed: bool = False) -> Path:
    """Return the directory, which is new or holds a run that `config` goes on with.

    Args:
      workdir: the directory.
      config: what is to be run in it.
      claimed: whether another process of this run has claimed it already.

    Raises:
      ConfigError: if it holds a run whose results are decided otherwise; the message lists what
        differs. If it should be claimed and is not.
    """
    directory = Path(workdir)
    path = directory / CONFIG
    if claimed and not path.exists():
        raise ConfigError(
            f"--workdir={directory} must be one directory that all processes share; {CONFIG}, "
            "which process 0 wrote, is not there"
        )
    there = _read(path)
    if there is not None:
        _refuse(directory, _differences(there, config))
        _check_rounds(directory, there.get("rounds"), config)
    return directory


def check_bound(directory: Path, bound: Mapping[str, str | None]) -> None:
    """Raise `ConfigError` if the directory's run had other data or other objects.

    Args:
      directory: of a run.
      bound: hashes and descriptions by name; None: not given this time, which is no difference.
    """
    there = _read(directory / BOUND)
    if there is None:
        return
    differences = [
        f"{name} was {there[name]}, is {value}"
        for name, value in bound.items()
        if value is not None and there.get(name) not in (None, value)
    ]
    _refuse(directory, differences)


def claim(directory: Path, config: ExperimentConfig, bound: Mapping[str, str | None]) -> None:
    """Make a directory that was checked the directory of a run with `config`."""
    directory.mkdir(parents=True, exist_ok=True)
    before = _read(directory / BOUND) or {}
    given = {name: value for name, value in bound.items() if value is not None}
    write_json(directory / BOUND, {**before, **given, "version": __version__})
    write_json(directory / CONFIG, to_dict(config))


def free_fields(config: Any, prefix: str = "") -> set[str]:
    """Return the dotted names of the fields that do not decide a run's results."""
    found = set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not field.metadata.get("decides_results", True):
            found.add(prefix + field.name)
        elif field.name == "settings" and isinstance(config, Choosing):
            groups = value if config.takes_several() else {next(iter(config.chosen())): value}
            for name, group in groups.items():
                found |= free_fields(group, f"{prefix}{name}.")
        elif dataclasses.is_dataclass(value):
            found |= free_fields(value, f"{prefix}{field.name}.")
    return found


def read_summary(directory: Path) -> dict[str, Any] | None:
    """Return the summary of a finished run, or None."""
    return _read(directory / SUMMARY)


def hash_arrays(*arrays: np.ndarray) -> str:
    """Return a hash of the contents of arrays."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.dtype}{array.shape}".encode())
        content.update(np.ascontiguousarray(array))
    return content.hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON file's content; None if there is none."""
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged ({error}); delete it, or use another --workdir"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a JSON object; delete it, or use another --workdir")
    return values


def _refuse(directory: Path, differences: list[str]) -> None:
    if differences:
        raise ConfigError(
            f"{directory} holds a run with another configuration; use another --workdir, or "
            "the same values. Different: " + "; ".join(differences)
        )


def _check_rounds(directory: Path, before: Any, config: ExperimentConfig) -> None:
    if not isinstance(before, int) or before == config.rounds:
        return
    if config.rounds < before:
        raise ConfigError(
            f"{directory} holds a run with another configuration; a run can be made longer, not "
            f"shorter. Different: rounds was {before}, is {config.rounds}"
        )
    reason = config.rounds_matter()
    if reason:
        raise ConfigError(
            f"{directory} holds a run of {before} rounds, which cannot be made longer: {reason}. "
            f"Use another --workdir, or rounds={before}"
        )


def _differences(there: dict[str, Any], config: ExperimentConfig) -> list[str]:
    """Return the fields that differ, but for those that decide nothing, in words.

    A field that the directory does not know, because its version had none, had the default.
    """
    found, loose = [], free_fields(config)
    old, new = dict(flatten(there)), dict(flatten(to_dict(config)))
    default = dict(flatten(to_dict(type(config)())))
    for name in sorted(old.keys() | new.keys()):
        if any(name == each or name.startswith(f"{each}.") for each in loose):
            continue
        before = old.get(name, default.get(name))
        if before != new.get(name):
            found.append(f"{name} was {before!r}, is {new.get(name)!r}")
    return found
