"""Sections about what the methods achieve: results, curves, classes, clients, calibration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison, megabytes
from semanticfl_jax.reporting.html.charts import Line, chart, legend
from semanticfl_jax.reporting.html.elements import Cell, Column, number, paragraph, spread, table
from semanticfl_jax.reporting.runs import Method
from semanticfl_jax.reporting.series import mean_curve
from semanticfl_jax.reporting.significance import Paired, holm, paired

#: Columns of the table of clients; with more clients, a column is a quantile.
_MAX_RANKS = 20


def results(comparison: Comparison) -> str:
    """Return the table of methods, with gains over FedAvg and whether they could be chance."""
    metric, reference = comparison.metric, comparison.reference
    columns: list[Column | str] = [
        "Method",
        "Seeds",
        Column(
            f"Best {metric.column}", "Of the best round; optimistic: it is chosen on the test set"
        ),
        Column(f"Last {metric.column}", "Of the last evaluation"),
        Column(f"Mean of last 10 {metric.column}", "Of the last 10 evaluations"),
    ]
    tests = {
        m.label: paired(comparison.gains(m)) for m in comparison.rivals() if comparison.paired(m)
    }
    found = {label: test for label, test in tests.items() if test is not None}
    several = len(found) > 1
    adjusted = dict(zip(found, holm([test.p for test in found.values()]), strict=True))
    if reference:
        columns.append(Column("Gain", f"Over {reference.label}, in the mean of the last 10"))
    if found:
        columns += [
            Column("95 % interval", "Of the gain, by Student's t over seeds"),
            Column("p", "Two-sided paired t test over seeds"),
            *([Column("p (Holm)", f"The same, adjusted for {len(found)} comparisons")] * several),
            Column("p (signs)", "Exact sign-flip test over seeds"),
        ]
    columns += ["s / round", "MB / round"]
    best = [_best(comparison, name) for name in metric.fields]
    rows = []
    for method in comparison.methods:
        cells = [Cell(method.label), Cell(str(len(method.runs)), len(method.runs))]
        for name, top in zip(metric.fields, best, strict=True):
            values = method.values(name)
            strong = (
                bool(values) and len(comparison.methods) > 1 and statistics.fmean(values) == top
            )
            mean = statistics.fmean(values) if values else None
            cells.append(Cell(_dash(method.spread(metric, name)), mean, strong=strong))
        if reference:
            gains = comparison.gains(method)
            text = _dash(comparison.write_gain(method))
            cells.append(Cell(text, statistics.fmean(gains) if gains else None))
        if found:
            tested, holms = found.get(method.label), adjusted.get(method.label)
            cells += _test_cells(comparison, tested, holms, several)
        seconds = method.values("seconds_per_round")
        cells.append(number(statistics.fmean(seconds) if seconds else None))
        cells.append(number(megabytes(method)))
        rows.append(cells)
    return table(columns, rows) + _about_tests(comparison, found)


def _test_cells(
    comparison: Comparison, test: Paired | None, adjusted: float | None, several: bool
) -> list[Cell]:
    if test is None or adjusted is None:
        return [Cell("")] * (3 + several)
    write = comparison.metric.write
    interval = f"{write(test.low, '+')} to {write(test.high, '+')}"
    signs = Cell("–") if test.p_signs is None else Cell(_p(test.p_signs), test.p_signs)
    holms = [Cell(_p(adjusted), adjusted, strong=adjusted < 0.05)] * several
    return [
        Cell(interval, test.low),
        Cell(_p(test.p), test.p, strong=test.p < 0.05),
        *holms,
        signs,
    ]


def _about_tests(comparison: Comparison, found: dict[str, Paired]) -> str:
    text = (
        "Mean ± sample standard deviation over seeds. The best round is chosen on the test set and "
        "is therefore optimistic."
    )
    note = caveats.about_means(comparison)
    text += f" {note}" if note else ""
    if len(comparison.methods) > 1:
        text += " Bold: the best mean of a column, which may be chance, and every p below 0.05."
    if comparison.reference is None:
        why = "Gains are shown when exactly one method is plain FedAvg."
        return paragraph(f"{text} {why}" if len(comparison.methods) > 1 else text, "note")
    text += (
        f" The gain is over {comparison.reference.label} in the mean of the last 10 evaluations, "
        "seed by seed over the seeds that both have, and above 0 where the method is better."
    )
    if not found:
        return paragraph(text + " A test needs two seeds that both methods have.", "note")
    seeds = min(test.pairs for test in found.values())
    tests = (
        "Tests: p is of the paired t test over seeds, which takes the gains for normally "
        "distributed; p (signs) is of the exact sign-flip test, which takes them for symmetric."
    )
    if len(found) > 1:
        tests += f" p (Holm) adjusts p for the {len(found)} comparisons of this table."
    return "".join(paragraph(each, "note") for each in (text, tests, _about_seeds(seeds)))


def _about_seeds(seeds: int) -> str:
    """Return what tests of so few pairs can tell."""
    least = 2 / 2**seeds
    if seeds >= 6:
        return f"With {seeds} seeds the sign-flip test can reach {least:.2g} at best."
    return (
        f"With {seeds} seeds the sign-flip test cannot give less than {least:.2g}, however clear "
        "the gain: only the assumption of normal gains can bring a p below 0.05 with fewer than 6 "
        "seeds. The interval says which gains the runs are compatible with. A large p does not "
        "show that there is no gain."
    )


def curves(comparison: Comparison) -> str:
    """Return the metric and the losses over rounds, with bands, and the legend of all charts."""
    metric = comparison.metric
    charts = [
        chart(
            metric.title,
            "Round",
            metric.axis,
            lines(comparison, metric.name, metric.factor),
            metric.most,
        ),
        chart("Training loss", "Round", "Loss", lines(comparison, "train_loss")),
        chart("Test loss", "Round", "Loss", lines(comparison, "test_loss")),
        chart(
            "Accuracy of the worst class",
            "Round",
            "Test accuracy (%)",
            lines(comparison, "worst_class_accuracy", 100),
            100,
        ),
    ]
    note = "Lines are means over seeds; bands are one sample standard deviation to each side."
    return grid(comparison, charts) + paragraph(note, "note")


def lines(comparison: Comparison, name: str, factor: float = 1.0) -> list[Line]:
    """Return the curves of all methods of a field of the rows."""
    found = []
    for index, method in enumerate(comparison.methods):
        curve = mean_curve([run.rows for run in method.runs], name)
        band = factor * curve.spread if curve.seeds > 1 else None
        found.append(
            Line(index, method.label, curve.rounds.astype(float), factor * curve.mean, band)
        )
    return found


def grid(comparison: Comparison, charts: Sequence[str]) -> str:
    """Return charts beside one another, as many as fit, under their legend."""
    if not any(charts):
        return ""
    names = legend([method.label for method in comparison.methods])
    return f'{names}<div class="grid">{"".join(charts)}</div>'


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
        ranks = _by_rank(method)
        apart = [math.sqrt(value) for value in method.values("client_accuracy_variance")]
        rows.append(
            [
                Cell(method.label),
                number(None if ranks is None else float(ranks.mean()), factor=100),
                spread(method.values("worst_decile_accuracy"), factor=100),
                spread(apart, factor=100),
                spread(method.values("worst_class_accuracy"), factor=100),
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


def calibration(comparison: Comparison) -> str:
    """Return whether the models' confidence can be trusted."""
    if not any(method.values("ece") for method in comparison.methods):
        return ""
    rows = []
    for method in comparison.methods:
        last = [row["test_loss"] for run in method.runs if (row := _last(run.rows)) is not None]
        rows.append(
            [Cell(method.label), spread(method.values("ece"), factor=100), spread(last, ".3f")]
        )
    columns = [
        "Method",
        Column("ECE %", "Expected calibration error, 15 bins of equal width"),
        Column("Test loss", "Cross-entropy in nats"),
    ]
    charts = [
        chart("Calibration error", "Round", "ECE (%)", lines(comparison, "ece", 100), 100),
    ]
    note = (
        "The expected calibration error is how far confidence and accuracy lie apart, on average; "
        "0 is best. After the last round; mean ± sample standard deviation over seeds."
    )
    return table(columns, rows) + paragraph(note, "note") + grid(comparison, charts)


def _last(rows) -> dict | None:
    return next((row for row in reversed(rows) if row.get("test_loss") is not None), None)


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


def _best(comparison: Comparison, name: str) -> float | None:
    means = [statistics.fmean(values) for m in comparison.methods if (values := m.values(name))]
    return (max if comparison.metric.higher else min)(means, default=None)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _dash(text: str) -> str:
    return "–" if text == "-" else text
