"""A comparison as files that other programs read: CSV by method and by seed, and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from typing import Any

from semanticfl_jax.reporting.comparison import Comparison, megabytes

#: Fields of a summary in the table by seed, besides the metric's.
_SEED_FIELDS = (
    "best_round",
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

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def by_method(comparison: Comparison) -> str:
    """Return CSV, a line a method; accuracies as fractions, spread empty for a single seed."""
    figures = (*comparison.metric.fields, "gain_over_fedavg")
    header = [
        "method",
        "seeds",
        *(f"{name}_{kind}" for name in figures for kind in ("mean", "std")),
        "seconds_per_round",
        "megabytes_per_round",
    ]
    lines = []
    for method in comparison.methods:
        line: list[Any] = [method.label, len(method.runs)]
        for name in comparison.metric.fields:
            line += _mean_and_std(method.values(name))
        line += _mean_and_std(comparison.gains(method))
        seconds = method.values("seconds_per_round")
        line += [statistics.fmean(seconds) if seconds else "", megabytes(method)]
        lines.append(line)
    return _csv(header, lines)


def by_seed(comparison: Comparison) -> str:
    """Return CSV in long form, a line a seed of a method; what a run does not know is empty."""
    fields = (*comparison.metric.fields, *_SEED_FIELDS)
    lines = []
    for method in comparison.methods:
        gains = comparison.gains_by_seed(method)
        for run in method.runs:
            seed = run.config.get("seed")
            values = [run.summary.get(name) for name in fields]
            lines.append([method.label, seed, *values, gains.get(seed, ""), str(run.path)])
    return _csv(["method", "seed", *fields, "gain_over_fedavg", "run"], lines)


def latex(comparison: Comparison) -> str:
    """Return a table for LaTeX with the package booktabs; the best mean of each column is bold."""
    metric = comparison.metric
    unit = r" (\%)" if metric.is_accuracy else ""
    header = ["Method", "Seeds", *(f"{name}{unit}" for name in ("Best", "Last", "Mean of last 10"))]
    header += ["Gain over FedAvg"] if comparison.reference else []
    best = [_best(comparison, name) for name in metric.fields]
    lines = []
    for method in comparison.methods:
        cells = [escape_latex(method.label), str(len(method.runs))]
        for name, top in zip(metric.fields, best, strict=True):
            values = method.values(name)
            bold = bool(values) and statistics.fmean(values) == top
            cells.append(_math(metric.write_spread(values), bold))
        if comparison.reference:
            gains = comparison.gains(method)
            cells.append(_math(metric.write_spread(gains, sign="+")) if gains else "")
        lines.append(" & ".join(cells) + r" \\")
    setting = ", ".join(f"{name}={value}" for name, value in comparison.setting().items())
    return "\n".join(
        [
            f"% {setting}; mean and sample standard deviation over seeds.",
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
    mean, _, spread = text.partition(" ± ")
    if mean == "-":
        return "--"
    mean = rf"\mathbf{{{mean}}}" if bold else mean
    return f"${mean} \\pm {spread}$" if spread else f"${mean}$"


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
