"""Sections about what the methods achieve: results, curves, calibration."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison, megabytes
from semanticfl_jax.reporting.html.charts import Line, chart, legend
from semanticfl_jax.reporting.html.elements import Cell, Column, number, paragraph, spread, table
from semanticfl_jax.reporting.series import mean_curve
from semanticfl_jax.reporting.significance import MAX_FLIPS, Paired, holm, paired


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
    p_values = {label: test.p for label, test in found.items() if test.p is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    several = len(adjusted) > 1
    if reference:
        columns.append(Column("Gain", f"Over {reference.label}, in the mean of the last 10"))
    if found:
        columns += [
            Column("95 % interval", "Of the gain, by Student's t over seeds"),
            Column("p", "Two-sided paired t test over seeds"),
            *(
                [Column("p (Holm)", f"The same, adjusted for {len(adjusted)} comparisons")]
                * several
            ),
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
    if test is None:
        return [Cell("")] * (3 + several)
    write = comparison.metric.write
    signs = Cell("–") if test.p_signs is None else Cell(_p(test.p_signs), test.p_signs)
    if test.p is None or adjusted is None:
        return [*[Cell("–")] * (2 + several), signs]
    interval = f"{write(test.low, '+')} to {write(test.high, '+')}"
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
    tests = (
        "Tests: p is of the paired t test over seeds, which takes the gains for normally "
        "distributed; p (signs) is of the exact sign-flip test, which takes them for symmetric."
    )
    p_values = [test.p for test in found.values() if test.p is not None]
    if len(p_values) > 1:
        tests += f" p (Holm) adjusts p for the {len(p_values)} comparisons of this table."
    if len(p_values) < len(found):
        tests += " Gains that are the same in every seed have no spread, and therefore no p."
    seeds = _about_seeds([test.pairs for test in found.values()])
    return "".join(paragraph(each, "note") for each in (text, tests, seeds))


def _about_seeds(pairs: Sequence[int]) -> str:
    """Return what tests of so many pairs, a number a method, can tell."""
    if max(pairs) > MAX_FLIPS:
        without = f"With more than {MAX_FLIPS} seeds the sign-flip test is not computed."
        fewer = [count for count in pairs if count <= MAX_FLIPS]
        return f"{without} {_about_seeds(fewer)}" if fewer else without
    seeds = min(pairs)
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


def calibration(comparison: Comparison) -> str:
    """Return whether the models' confidence can be trusted."""
    if not any(method.values("ece") for method in comparison.methods):
        return ""
    rows = []
    for method in comparison.methods:
        last = [row["test_loss"] for run in method.runs if (row := _last(run.rows)) is not None]
        seeds = len(method.runs)
        error = spread(method.values("ece"), factor=100, of=seeds)
        rows.append([Cell(method.label), error, spread(last, ".3f", of=seeds)])
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


def _best(comparison: Comparison, name: str) -> float | None:
    means = [statistics.fmean(values) for m in comparison.methods if (values := m.values(name))]
    return (max if comparison.metric.higher else min)(means, default=None)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _dash(text: str) -> str:
    return "–" if text == "-" else text
