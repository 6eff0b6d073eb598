"""The directory of a run: whose it is, and which files it holds."""

import json
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.reporting.metrics import write_json

CONFIG, SUMMARY, PARTITION, ANCHORS = "config.json", "summary.json", "partition.npz", "anchors.npz"
CHECKPOINTS, PLOTS = "checkpoints", "plots"


def claim(workdir: str | Path, config: ExperimentConfig) -> Path:
    """Makes `workdir` the directory of a run with `config`, or recognises it as that.

    Raises:
      ConfigError: if it holds a run with another configuration; the message lists what differs.
    """
    directory = Path(workdir)
    path = directory / CONFIG
    wanted = to_dict(config)
    if path.exists():
        differences = _differences(json.loads(path.read_text()), wanted)
        if differences:
            raise ConfigError(
                f"{directory} holds a run with another configuration; use another --workdir, or "
                "the same values. Different: " + "; ".join(differences)
            )
    else:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    return directory


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
