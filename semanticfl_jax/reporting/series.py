"""Figures over rounds: of one run, and as mean and spread over the seeds of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A figure of a method over the rounds that all of its seeds have.

    Attributes:
      rounds: int [M].
      mean: float64 [M], over seeds; NaN where a seed has null.
      spread: float64 [M], sample standard deviation over seeds; zeros for one seed.
      seeds: how many.
    """

    rounds: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    seeds: int


def series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rounds [M] that have the field `name`, and its values [M], NaN where null."""
    present = [row for row in rows if name in row]
    values = [np.nan if row[name] is None else row[name] for row in present]
    return np.array([row["round"] for row in present], int), np.array(values, float)


def mean_curve(seeds: Sequence[Rows], name: str) -> Curve:
    """Return mean and sample standard deviation of the field `name` over seeds.

    Args:
      seeds: rows of each seed. Only rounds that every seed has with this field count.
      name: of a number in the rows.
    """
    curves = [dict(zip(*series(rows, name), strict=True)) for rows in seeds]
    rounds = sorted(set.intersection(*map(set, curves)))
    values = np.array([[curve[r] for r in rounds] for curve in curves]).reshape(len(curves), -1)
    spread = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(values.shape[1])
    return Curve(np.array(rounds, int), values.mean(axis=0), spread, len(curves))


def cost_curve(
    seeds: Sequence[Rows], name: str, cost: Callable[[Mapping[str, Any]], float]
) -> tuple[np.ndarray, Curve]:
    """Return the curve of the field `name`, and what the rounds until then have cost.

    Args:
      seeds: rows of each seed.
      name: of a number in the rows.
      cost: of the round of a row.

    Returns:
      float64 [M], summed over rounds, mean over seeds; the curve over the same M rounds.
    """
    curve = mean_curve(seeds, name)
    spent = mean_curve([_summed(rows, cost) for rows in seeds], "_spent")
    at = dict(zip(spent.rounds.tolist(), spent.mean, strict=True))
    return np.array([at[number] for number in curve.rounds.tolist()], float), curve


def _summed(rows: Rows, cost: Callable[[Mapping[str, Any]], float]) -> list[dict[str, Any]]:
    total, found = 0.0, []
    for row in rows:
        total += cost(row)
        found.append({"round": row["round"], "_spent": total})
    return found


def bytes_of(row: Mapping[str, Any]) -> float:
    """Return the bytes that a round sends, both ways."""
    return (row.get("bytes_up") or 0) + (row.get("bytes_down") or 0)
