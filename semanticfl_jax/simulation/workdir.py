"""The directory of a run: whose it is, and which files it holds.

A directory is bound by what decides a run's results: fields of the configuration, and hashes of the
data, the partition and whatever was given as an object. Paths, devices and `rounds` may change; a
run can be made longer, not shorter.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import __version__
from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.config.fields import Choosing, flatten
from semanticfl_jax.data.federation import CLIENTS, PARTITION
from semanticfl_jax.devices.versions import code_commit
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object, write_json
from semanticfl_jax.lock import Lock
from semanticfl_jax.reporting.runs import ended, without_addresses
from semanticfl_jax.reporting.writers.metrics import METRICS_FILE, read_metrics
from semanticfl_jax.types import Say

CONFIG, BOUND, SUMMARY = "config.json", "run.json", "summary.json"
ANCHORS, TUNING, MODEL = "anchors.npz", "tuning.json", "model.safetensors"
CLIENT_TESTS = "client_tests.npz"
CHECKPOINTS, PLOTS = "checkpoints", "plots"
DAMAGED = "checkpoints-damaged"
STATES = "client_states"
IN_CHECKPOINTS = "in the checkpoints"
#: Objects that take the place of fields of the configuration.
OBJECTS = ("model", "algorithm")
#: Where loggers keep which of a tracker's runs is this one, and what they write themselves.
TRACKERS = ("wandb.json", "mlflow.json", "tensorboard")
_PARTS = "data_parts"
_OF_A_RUN = (
    SUMMARY,
    CHECKPOINTS,
    DAMAGED,
    STATES,
    METRICS_FILE,
    MODEL,
    PARTITION,
    CLIENTS,
    CLIENT_TESTS,
    ANCHORS,
    TUNING,
    PLOTS,
    *TRACKERS,
)


def check(workdir: str | os.PathLike, config: ExperimentConfig, claimed: bool = False) -> Path:
    """Return the directory, which is new or holds a run that `config` can resume.

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
    there = read_json(path)
    if there is not None:
        _refuse(directory, _differences(there, config))
        _check_rounds(directory, there.get("rounds"), config)
    return directory


def check_states(directory: Path, now: str) -> None:
    """Raise `ConfigError` if the directory's checkpoints have clients' states elsewhere.

    Args:
      directory: of a run.
      now: where this run would have them: `IN_CHECKPOINTS`, or other words.
    """
    before = (read_json(directory / BOUND) or {}).get(STATES, IN_CHECKPOINTS)
    checkpoints = (directory / CHECKPOINTS).glob("*")
    if before != now and any(path.name.isdecimal() for path in checkpoints):
        raise ConfigError(
            f"{directory} cannot be resumed so: its clients' states are {before}, and would be "
            f"{now}; use the same runtime.client_state_memory and number of processes, or "
            "--overwrite, which sets it aside"
        )


def open_run(
    directory: Path, config: ExperimentConfig, overwrite: bool, say: Say, *, main: bool
) -> tuple[dict[str, Any] | None, Lock | None]:
    """Return the summary of the directory's run, if it is finished; else a lock of the directory.

    Args:
      directory: of the run.
      config: what is to be run.
      overwrite: whether what is there is set aside first.
      say: takes lines for the user.
      main: whether this is the main process of the run; its others share the directory, and have no
        lock.
    """
    if overwrite and main:
        with Lock(directory):
            aside = set_aside(directory)
        if aside is not None:
            say(f"what {directory} held is now in {aside}")
    check(directory, config)
    summary = read_summary(directory, say)
    if summary is not None and ended(summary, summary["rounds"], config.rounds):
        return summary, None
    return None, Lock(directory) if main else None


def check_bound(directory: Path, bound: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the directory's run had other data or other objects.

    Args:
      directory: of a run.
      bound: hashes and descriptions by name, the data's first. A value of None is not compared, but
        of `OBJECTS`, which decide a run where they are given.
    """
    there = read_json(directory / BOUND)
    if there is None:
        return
    differences = []
    for name, value in bound.items():
        had = there.get(name)
        had = without_addresses(had) if name == "model" and isinstance(had, str) else had
        unknown = None in (value, had) and name not in OBJECTS
        if name != _PARTS and not unknown and value != had:
            was, now = ("not given" if each is None else each for each in (had, value))
            differences.append(f"{name} was {was}, is {now}")
    parts, had = bound.get(_PARTS), there.get(_PARTS)
    if differences and parts and isinstance(had, dict) and there.get("data") != bound.get("data"):
        changed = [
            f"{part} were {had.get(part)}, are {now}"
            for part, now in parts.items()
            if had.get(part) != now
        ]
        differences[0] = f"data: {'; '.join(changed) or 'the images or inputs themselves'}"
    _refuse(directory, differences)


def rounds_in(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many rounds, from the first, have a row."""
    known = {row["round"] for row in rows}
    return next(number for number in itertools.count() if number + 1 not in known)


def read_history(directory: Path, rounds: int, say: Say) -> list[dict[str, Any]]:
    """Return the rows of a run that is finished after so many rounds; warn if some are missing."""
    rows = read_metrics(directory)
    known = rounds_in(rows)
    if known < rounds:
        say(
            f"warning: {directory / METRICS_FILE} has the rows of {known} of {rounds} rounds only: "
            "the history is not whole"
        )
    return rows


def claim(directory: Path, config: ExperimentConfig, bound: Mapping[str, Any]) -> None:
    """Make a directory that was checked the directory of a run with `config`."""
    directory.mkdir(parents=True, exist_ok=True)
    before = read_json(directory / BOUND) or {}
    given = {name: value for name, value in bound.items() if value is not None}
    code = {"version": __version__, "commit": code_commit()}
    write_json(directory / BOUND, {**before, **given, **code})
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


def _alike(config: Any, name: str) -> tuple[Any, ...]:
    """Return the values of a field among which results do not differ."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    return fields[name].metadata.get("same_results", ()) if name in fields else ()


def read_summary(directory: Path, say: Say) -> dict[str, Any] | None:
    """Return the summary of a finished run; None without one, or where it is damaged."""
    try:
        summary = read_json(directory / SUMMARY)
        if summary is None or (
            type(summary.get("rounds")) is int
            and isinstance(summary.get("versions", {}), dict)
            and isinstance(summary.get("privacy"), dict | None)
        ):
            return summary
        raise ConfigError("it does not say how many rounds were done, or with what")
    except ConfigError:
        say(f"warning: {directory / SUMMARY} is damaged; it is made anew from the checkpoint")
        return None


def finished_line(directory: Path, summary: Mapping[str, Any]) -> str:
    """Return what is to be known of a run that is not trained again: when, and with which code."""
    when, commit = summary.get("finished"), summary.get("commit")
    version = summary.get("versions", {}).get("semanticfl_jax")
    line = f"{directory} is finished: {summary['rounds']} rounds"
    line += f", on {when}" if when else ""
    line += f", with semanticfl_jax {version}" if version else ""
    line += f" (commit {commit})" if commit else ""
    now = code_commit()
    if (version, commit) != (__version__, now) and (version or commit):
        line += f"; the code is now {__version__}" + (f" (commit {now})" if now else "")
    if summary.get("stopped_early"):
        line += "; its own code stopped it early"
    if summary.get("diverged_round") is not None:
        line += f"; it diverged in round {summary['diverged_round']}"
    return f"{line}. To run it anew: --overwrite, or overwrite=True"


def set_aside(directory: Path) -> Path | None:
    """Move what a run wrote into a new folder of its directory; None if there is nothing.

    Nothing is deleted. The configuration goes last: a directory that is left half moved is still
    that run's.
    """
    made = (path.name for kind in ("anchors", "student") for path in directory.glob(f"{kind}[.-]*"))
    names = (*_OF_A_RUN, *made, BOUND, CONFIG)
    there = [name for name in dict.fromkeys(names) if (directory / name).exists()]
    if not there:
        return None
    stamp = time.strftime("before-%Y%m%d-%H%M%S")
    target = directory / stamp
    for number in itertools.count(2):
        try:
            target.mkdir()
            break
        except FileExistsError:
            target = directory / f"{stamp}-{number}"
    for name in there:
        (directory / name).rename(target / name)
    return target


def hash_arrays(*arrays: np.ndarray) -> str:
    """Return a hash of the contents of arrays."""
    content = hashlib.sha256()
    for array in arrays:
        content.update(f"{array.dtype}{array.shape}".encode())
        content.update(np.ascontiguousarray(array))
    return content.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return a JSON file's content; None if there is none."""
    if not path.exists():
        return None
    try:
        return read_json_object(path)
    except SemanticFLError as error:
        raise ConfigError(
            f"{error}; use another --workdir, or --overwrite, which sets aside what is there"
        ) from None


def _refuse(directory: Path, differences: list[str]) -> None:
    if differences:
        raise ConfigError(
            f"{directory} holds a run with another configuration; use another --workdir, the same "
            "values, or --overwrite, which sets it aside. Different: " + "; ".join(differences)
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
        before, now, alike = old.get(name, default.get(name)), new.get(name), _alike(config, name)
        if before != now and not (before in alike and now in alike):
            found.append(f"{name} was {before!r}, is {now!r}")
    return found
