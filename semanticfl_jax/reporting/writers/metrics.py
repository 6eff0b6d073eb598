"""Scalars of every round as JSON lines, and their summary.

JSON has no NaN or infinity: both are written as null and read back as None.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import to_json_values, write_text
from semanticfl_jax.reporting.metric import ACCURACY, Metric

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends one JSON line a round to `metrics.jsonl`.

    Args:
      workdir: directory of the run; made if missing.
      history: rows of the rounds already trained, which take the place of what the file has; it
        may have more, from a run that was killed between checkpoints. They are not new: the file
        keeps the time at which it was changed.
    """

    def __init__(self, workdir: str | os.PathLike, history: Sequence[Mapping[str, Any]] = ()):
        directory = Path(workdir)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_FILE
        changed = path.stat().st_mtime_ns if path.exists() else None
        write_text(path, "".join(map(_line, history)))
        if changed is not None:
            os.utime(path, ns=(changed, changed))
        self._last_round = history[-1]["round"] if history else 0
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one round and flush it, so that a killed process loses nothing written.

        Args:
          row: `round` (counted from 1) and scalars: Python, NumPy or JAX numbers. By convention
            `train_loss`, `test_accuracy` (fraction) and `test_loss` when evaluated, `seconds`,
            `images_per_second`, `bytes_up`, `bytes_down`.

        Raises:
          SemanticFLError: if `round` does not come after the last one written.
        """
        row = to_json_values(row)
        if row["round"] <= self._last_round:
            raise SemanticFLError(f"round must be above {self._last_round}, got {row['round']}")
        self._last_round = row["round"]
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return rows of a run's `metrics.jsonl`, by round; empty when there is none.

    A last line cut short, as `kill -9` can leave it, is ignored, as are empty lines and the zeros
    that a machine without power can leave at the end.

    Raises:
      SemanticFLError: if any other line is no JSON object with a `round` after the last one's.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_bytes().rstrip(b"\0\r\n\t ").splitlines()
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            reason = f"{type(error).__name__}: {str(error)[:100]}"
            raise SemanticFLError(f"{path}, line {number}: not a metrics row ({reason})") from None
        last, given = (
            rows[-1]["round"] if rows else 0,
            row.get("round") if isinstance(row, dict) else None,
        )
        if type(given) is not int or given <= last:
            raise SemanticFLError(
                f"{path}, line {number}: not a metrics row (it must have a round above {last}, the "
                "last one's)"
            )
        rows.append(row)
    return rows


def summarize(
    rows: Iterable[Mapping[str, Any]],
    last: int = 10,
    *,
    metric: Metric = ACCURACY,
) -> dict[str, Any]:
    """Return figures of one run.

    Best, last and the mean of the last evaluations are reported together, because the best round
    alone is optimistic: it is chosen on the test set.

    Args:
      rows: rounds in order, as `read_metrics` returns them.
      last: how many evaluated rounds `mean_last10_accuracy` averages.
      metric: by which the task judges models.

    Returns:
      `rounds`; `final_accuracy`, `best_accuracy`, `mean_last10_accuracy` (fractions) and
      `best_round` (the first that reached it), None without evaluations, and the last and the mean
      also where an evaluation that counts was not finite; with another metric its name, as in
      `final_mse`, takes the place of "accuracy"; `train_seconds` (sum);
      `seconds_per_round` and `images_per_second` (medians, which the first round's compilation
      does not move), None without rows; `bytes_up`, `bytes_down` (sums).
    """
    rows = list(rows)
    evaluated = [row for row in rows if metric.name in row]
    for row in rows:
        for name in (metric.name, "seconds", "images_per_second", "bytes_up", "bytes_down"):
            if isinstance(row.get(name), str | list | dict):
                raise SemanticFLError(
                    f"{name} of round {row['round']} must be a number, is {row[name]!r}"
                )
    values = [row[metric.name] for row in evaluated]
    tail = values[-last:]
    finite = [row for row in evaluated if row[metric.name] is not None]
    choose = max if metric.higher else min
    best = choose(finite, key=lambda row: row[metric.name], default=None)
    best_field, final_field, mean_field = metric.fields

    def column(name):
        return [row[name] for row in rows if row.get(name) is not None]

    def median(values):
        return statistics.median(values) if values else None

    return {
        "rounds": max((row["round"] for row in rows), default=0),
        final_field: values[-1] if values else None,
        best_field: best[metric.name] if best else None,
        "best_round": best["round"] if best else None,
        mean_field: statistics.fmean(tail) if tail and None not in tail else None,
        "train_seconds": math.fsum(column("seconds")),
        "seconds_per_round": median(column("seconds")),
        "images_per_second": median(column("images_per_second")),
        "bytes_up": sum(column("bytes_up")),
        "bytes_down": sum(column("bytes_down")),
    }


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
