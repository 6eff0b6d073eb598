"""A comparison as files that other programs read: CSV by method and by seed, and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
import statistics
from collections.abc import Sequence
from typing import Any

from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.client_tests import all_fields
from semanticfl_jax.reporting.comparison import Comparison, megabytes

#: Fields of a summary in the table by seed, besides the metric's.
_SEED_FIELDS = (
    "best_round",
    "diverged_round",
    "worst_class_accuracy",
    "worst_decile_accuracy",
    "client_accuracy_variance",
    "ece",
    "seconds_per_round",
    "compile_seconds",
    "train_seconds",
    "bytes_up",
    "bytes_down",
)

#: The power of ten of a number as Python writes it.
_TEN = re.compile(r"e([+-]\d+)")

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def by_method(comparison: Comparison) -> str:
    """Return CSV, a line a method; accuracies as fractions, spread empty for a single seed.

    The count after mean and spread is the number of seeds: of a gain, of those that both methods
    have, and 0 where it is the difference of two means.
    """
    figures = (*comparison.metric.fields, "gain_over_fedavg")
    header = [
        "method",
        "seeds",
        *(f"{name}_{kind}" for name in figures for kind in ("mean", "std", "count")),
        "seconds_per_round",
        "megabytes_per_round",
    ]
    lines = []
    for method in comparison.methods:
        line: list[Any] = [method.label, len(method.runs)]
        for name in comparison.metric.fields:
            values = method.values(name)
            line += [*_mean_and_std(values), len(values)]
        gains = _mean_and_std(comparison.gains(method))
        rival = comparison.reference is not None and method is not comparison.reference
        line += [*gains, len(comparison.gains_by_seed(method)) if rival else ""]
        seconds = method.values("seconds_per_round")
        line += [statistics.fmean(seconds) if seconds else "", megabytes(method)]
        lines.append(line)
    return _csv(header, lines)


def by_seed(comparison: Comparison) -> str:
    """Return `seed_rows` as CSV; what a run does not know is empty."""
    rows = seed_rows(comparison)
    return _csv(list(rows[0]), [list(row.values()) for row in rows])


def seed_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a flat row for each seed of each method; what a run does not know is None.

    Figures over clients' own test images are there where any run tested its clients.
    """
    tested = all_fields(comparison.metric)
    known = {name for run in comparison.runs for name in run.summary if name in tested}
    fields = (*comparison.metric.fields, *_SEED_FIELDS, *sorted(known))
    rows = []
    for method in comparison.methods:
        gains = comparison.gains_by_seed(method)
        for run in method.runs:
            seed = run.config.get("seed")
            row = {"method": method.label, "seed": seed}
            row |= {name: run.summary.get(name) for name in fields}
            rows.append(row | {"gain_over_fedavg": gains.get(seed), "run": str(run.path)})
    return rows


def latex(comparison: Comparison) -> str:
    """Return a table for LaTeX with the package booktabs; the best mean of each column is bold."""
    metric = comparison.metric
    unit = r" (\%)" if metric.is_accuracy else ""
    header = ["Method", "Seeds", *(f"{name}{unit}" for name in ("Best", "Last", "Mean of last 10"))]
    header += ["Gain over FedAvg"] if comparison.reference else []
    best = [_best(comparison, name) for name in metric.fields]
    several = len(comparison.methods) > 1
    lines = []
    for method in comparison.methods:
        cells = [escape_latex(method.label), str(len(method.runs))]
        for name, top in zip(metric.fields, best, strict=True):
            values = method.values(name)
            bold = several and bool(values) and statistics.fmean(values) == top
            cells.append(_math(method.spread(metric, name), bold))
        if comparison.reference:
            own = method is comparison.reference
            cells.append("" if own else _math(comparison.write_gain(method)))
        lines.append(" & ".join(cells) + r" \\")
    setting = ", ".join(f"{name}={value}" for name, value in comparison.setting().items())
    told = [f"Warning: {warning}." for warning in caveats.warnings(comparison)]
    told = [text for text in (caveats.about_means(comparison), *told) if text]
    return "\n".join(
        [
            f"% {setting}; mean and sample standard deviation over seeds.",
            *(f"% {' '.join(text.splitlines())}" for text in told),
            r"% Needs \usepackage{booktabs}.",
            r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Return `text` with the characters escaped that LaTeX reads as commands."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def _best(comparison: Comparison, name: str) -> float | None:
    means = [statistics.fmean(values) for m in comparison.methods if (values := m.values(name))]
    return (max if comparison.metric.higher else min)(means, default=None)


def _math(text: str, bold: bool = False) -> str:
    """Return a figure as the other tables write it, "+1.2e+04 ± 3 (2 of 3)", in LaTeX."""
    if text == "-":
        return "--"
    figure, bracket, behind = text.partition(" (")
    mean, _, spread = (_TEN.sub(_power, part) for part in figure.partition(" ± "))
    mean = rf"\mathbf{{{mean}}}" if bold else mean
    return (f"${mean} \\pm {spread}$" if spread else f"${mean}$") + bracket + behind


def _power(found: re.Match[str]) -> str:
    return rf" \times 10^{{{int(found[1])}}}"


def _csv(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()


def _mean_and_std(values: Sequence[float]) -> list[float | str]:
    mean = statistics.fmean(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return ["" if math.isnan(value) else value for value in (mean, spread)]
