"""The directory of a run: whose it is, and which files it holds."""

import json
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.files import write_json

CONFIG, SUMMARY, PARTITION, ANCHORS = "config.json", "summary.json", "partition.npz", "anchors.npz"
TUNING, CHECKPOINTS, PLOTS = "tuning.json", "checkpoints", "plots"


def check(workdir: str | Path, config: ExperimentConfig, claimed: bool = False) -> Path:
    """The directory, which is new or holds a run with `config`.

    Args:
      workdir: the directory.
      config: what is to be run in it.
      claimed: whether another process of this run has claimed it already.

    Raises:
      ConfigError: if it holds a run with another configuration; the message lists what differs. If
        it should be claimed and is not.
    """
    directory = Path(workdir)
    path = directory / CONFIG
    if claimed and not path.exists():
        raise ConfigError(
            f"--workdir={directory} must be one directory that all processes share; {CONFIG}, "
            "which process 0 wrote, is not there"
        )
    if path.exists():
        differences = _differences(json.loads(path.read_text()), to_dict(config))
        if differences:
            raise ConfigError(
                f"{directory} holds a run with another configuration; use another --workdir, or "
                "the same values. Different: " + "; ".join(differences)
            )
    return directory


def claim(directory: Path, config: ExperimentConfig) -> None:
    """Makes a directory that was checked the directory of a run with `config`."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / CONFIG, to_dict(config))


def read_summary(directory: Path) -> dict[str, Any] | None:
    """The summary of a finished run, or None."""
    path = directory / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def _differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name in sorted(there.keys() | here.keys()):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old!r}, is {new!r}")
    return found
