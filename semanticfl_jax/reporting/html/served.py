"""Sections about whom the models serve: each class, each client, and how evenly."""

from __future__ import annotations

import math
import statistics

import numpy as np

from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html.charts import chart
from semanticfl_jax.reporting.html.elements import Cell, Column, paragraph, spread, table
from semanticfl_jax.reporting.html.quality import grid, lines
from semanticfl_jax.reporting.runs import Method

#: Columns of the table of clients; with more clients, a column is a quantile.
_MAX_RANKS = 20


def classes(comparison: Comparison) -> str:
    """Return the accuracy of each class by method, as a table of colours."""
    found = {m.label: _by_class(m) for m in comparison.methods}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    if not names:
        return ""
    values = [[by_class.get(name, math.nan) for by_class in found.values()] for name in names]
    rows = [
        [Cell(name), *line] for name, line in zip(names, _shaded(np.array(values)), strict=True)
    ]
    note = "Test accuracy (%) after the last round, mean over seeds; the more colour, the better."
    return table(["Class", *found], rows, kind="heat tall") + paragraph(note, "note")


def _by_class(method: Method) -> dict[str, float]:
    """Return the accuracy of each class after the last round, mean over the seeds that have it."""
    found: dict[str, list[float]] = {}
    for run in method.runs:
        for name, value in (run.summary.get("class_accuracy") or {}).items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {name: statistics.fmean(v) if v else math.nan for name, v in found.items()}


def clients(comparison: Comparison) -> str:
    """Return what the models are worth to the clients, from the worst served to the best."""
    ranked = {m.label: _by_rank(m) for m in comparison.methods}
    known = {label: values for label, values in ranked.items() if values is not None}
    if not known:
        return ""
    count = max(len(values) for values in known.values())
    shares = np.linspace(0, 1, min(count, _MAX_RANKS))
    heads = [f"{100 * share:.0f} %" for share in shares]
    heads[0], heads[-1] = "worst", "best"
    shaded = _shaded(np.array([np.quantile(values, shares) for values in known.values()]))
    rows = [[Cell(label), *line] for label, line in zip(known, shaded, strict=True)]
    note = (
        "Test accuracy (%) of the last model on each client's own label distribution. Clients are "
        "ranked by it in every seed, then averaged over seeds, because another seed deals other "
        "data to a client of the same number."
    )
    if count > _MAX_RANKS:
        note += f" {count} clients, shown as {_MAX_RANKS} quantiles."
    return table(["Method", *heads], rows, kind="heat") + paragraph(note, "note")


def _by_rank(method: Method) -> np.ndarray | None:
    """Return the clients' accuracies, sorted in each seed, mean over seeds [N]; None if unknown."""
    sorted_by_seed = []
    for run in method.runs:
        values = np.array(run.summary.get("client_accuracy") or [], float)
        sorted_by_seed.append(np.sort(values[np.isfinite(values)]))
    sizes = {len(values) for values in sorted_by_seed}
    if 0 in sizes:
        return None
    places = np.linspace(0, 1, min(sizes))
    return np.mean([np.quantile(values, places) for values in sorted_by_seed], axis=0)


def fairness(comparison: Comparison) -> str:
    """Return how evenly the models serve clients and classes."""
    fields = ("worst_decile_accuracy", "client_accuracy_variance", "worst_class_accuracy")
    if not any(m.values(name) for m in comparison.methods for name in fields):
        return ""
    rows = []
    for method in comparison.methods:
        seeds = len(method.runs)
        apart = [math.sqrt(value) for value in method.values("client_accuracy_variance")]
        rows.append(
            [
                Cell(method.label),
                spread(_client_means(method), factor=100, of=seeds),
                spread(method.values("worst_decile_accuracy"), factor=100, of=seeds),
                spread(apart, factor=100, of=seeds),
                spread(method.values("worst_class_accuracy"), factor=100, of=seeds),
            ]
        )
    columns = [
        "Method",
        Column("Mean client %", "Every client counts alike, whatever its size"),
        Column("Worst tenth %", "Mean over the tenth of the clients that are served worst"),
        Column("Spread over clients", "Standard deviation over clients, in percentage points"),
        Column("Worst class %", "Accuracy of the class that is recognised worst"),
    ]
    charts = [
        chart(
            "Worst tenth of the clients",
            "Round",
            "Accuracy (%)",
            lines(comparison, "worst_decile_accuracy", 100),
            100,
        )
    ]
    note = "After the last round; mean ± sample standard deviation over seeds."
    return table(columns, rows) + paragraph(note, "note") + grid(comparison, charts)


def _client_means(method: Method) -> list[float]:
    """Return the mean accuracy over the clients of each seed that has it."""
    found = [np.array(run.summary.get("client_accuracy") or [], float) for run in method.runs]
    known = [values[np.isfinite(values)] for values in found]
    return [float(values.mean()) for values in known if len(values)]


def _shaded(values: np.ndarray) -> list[list[Cell]]:
    """Return cells of fractions [rows, columns], coloured from the least to the greatest."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return [
        [
            Cell(f"{100 * value:.0f}", value, shade=(value - low) / max(high - low, 1e-9))
            if math.isfinite(value)
            else Cell("–")
            for value in line
        ]
        for line in values.tolist()
    ]
