"""What must be known with figures that are compared: what is unfair, ended early, or missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semanticfl_jax.files import read_json_object
from semanticfl_jax.reporting.runs import Method, Run, stopped_early, used_up

if TYPE_CHECKING:
    from semanticfl_jax.reporting.comparison import Comparison

#: Evaluations that a summary's mean of the last ones is over, if a run has so many.
_LAST = 10


def not_compared(directory: str | os.PathLike) -> str:
    """Return the sentence that tells of a run which diverged, and is therefore left out."""
    path = Path(directory)
    number = read_json_object(path / "summary.json", missing_ok=True).get("diverged_round")
    return left_out(path.name, number)


def left_out(name: str, number: int | None) -> str:
    """Return the same sentence of a run by its name, and by the round in which it diverged."""
    where = "" if number is None else f" in round {number}"
    return f"{name} is not compared: it diverged{where}"


def warnings(comparison: Comparison) -> list[str]:
    """Return sentences, without their full stops, about what makes figures unlike one another."""
    differing = comparison.unfair()
    found = [f"the runs also differ in {', '.join(differing)}"] if differing else []
    found += comparison.left_out
    for run in comparison.runs:
        if run.summary.get("diverged_round") is not None:
            found.append(f"{run.path} diverged in round {run.summary['diverged_round']}")
        else:
            found += _ended_early(run)
    return found


def _ended_early(run: Run) -> list[str]:
    done, wanted = run.summary.get("rounds"), run.config.get("rounds")
    if done is None or wanted is None or done >= wanted:
        return []
    why = ": its privacy budget was used up" if used_up(run.summary) else ""
    why = ": its own code stopped it" if stopped_early(run.summary) else why
    return [f"{run.path} ended after {done} of {wanted} rounds{why}"]


def about_means(comparison: Comparison) -> str:
    """Return of how many evaluations "the mean of the last 10" is, where they are fewer; or ""."""
    count = all_evaluations(comparison)
    if count is not None:
        what = f"all {count} evaluations" if count > 1 else "the only evaluation"
        return f"The mean of the last 10 is of {what}: there are no more."
    fewer = {m.label: _counts(comparison, m) for m in comparison.methods}
    told = [
        f"{label} ({' or '.join(map(str, counts))})"
        for label, counts in fewer.items()
        if 0 < counts[0] < _LAST
    ]
    return f"The mean of the last 10 is of fewer evaluations in {', '.join(told)}." if told else ""


def all_evaluations(comparison: Comparison) -> int | None:
    """Return how many evaluations every run has, where they are as many, and fewer than 10."""
    counts = {count for m in comparison.methods for count in _counts(comparison, m)}
    return counts.pop() if len(counts) == 1 and 0 < min(counts) < _LAST else None


def _counts(comparison: Comparison, method: Method) -> Sequence[int]:
    """Return the different numbers of evaluations that a method's runs have, the least first."""
    name = comparison.metric.name
    return sorted({sum(name in row for row in run.rows) for run in method.runs})
