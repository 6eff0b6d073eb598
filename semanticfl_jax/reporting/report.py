"""Comparison of finished runs: a table of methods, with spread over seeds."""

from __future__ import annotations

import csv
import io
import math
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.files import write_text
from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.runs import (
    NOT_METHOD,
    Method,
    ReportError,
    Run,
    differing_fields,
    flatten,
    group,
    load_runs,
    method_label,
)

#: Fields (and groups of fields) that a comparison is about.
_COMPARED = ("algorithm", "guidance", *NOT_METHOD)

#: Fields shown above the table when all runs share them.
_SETTING = (
    "dataset",
    "partition.scheme",
    "partition.alpha",
    "model.name",
    "num_clients",
    "clients_per_round",
    "rounds",
    "local_epochs",
)


def compare(directories: Sequence[str | os.PathLike], out: str | os.PathLike | None = None) -> str:
    """Return a Markdown table of finished runs, one line a method.

    The task's metric is given as mean ± sample standard deviation over seeds: of the best round (an
    optimistic figure), the last, and the mean of the last 10 evaluated; accuracies are percentages.
    When plain FedAvg is among the methods, the gain is over its mean of the last 10, above 0 where
    the method is better: seed by seed when both have the same seeds, so that what the seed decides
    for both cancels.

    Args:
      directories: finished runs.
      out: where to write comparison.md, comparison.csv and comparison.png, which the returned
        text then names; None writes nothing.

    Raises:
      ReportError: as `load_runs` and `group`, or if the runs' tasks have different metrics.
    """
    runs = load_runs(directories)
    methods, metric = group(runs), _metric(runs)
    text = _table(runs, methods, metric)
    of_clients = client_tests.table(methods, metric)
    if of_clients is not None:
        text += f"\n\n{of_clients}"
    if out is not None:
        paths = _write(methods, metric, text, Path(out))
        text += "\n\n" + "\n".join(f"wrote {path}" for path in paths)
    return text


def _metric(runs: Sequence[Run]) -> Metric:
    """Return the metric of all runs; raise `ReportError` if there is more than one."""
    by_metric: dict[Metric, Run] = {}
    for run in runs:
        by_metric.setdefault(Metric.of(run.summary), run)
    if len(by_metric) > 1:
        kinds = ", ".join(f"{metric.name} ({run.path})" for metric, run in by_metric.items())
        raise ReportError(f"cannot compare runs whose tasks have different metrics: {kinds}")
    return next(iter(by_metric))


def _write(methods: Sequence[Method], metric: Metric, text: str, out: Path) -> list[Path]:
    from semanticfl_jax.reporting.plots.curves import plot_comparison

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"comparison.{kind}" for kind in ("md", "csv", "png")]
    write_text(paths[0], text + "\n")
    write_text(paths[1], _csv(methods, metric))
    curves = {method.label: [run.rows for run in method.runs] for method in methods}
    plot_comparison(curves, paths[2], metric=metric)
    return paths


def _table(runs: Sequence[Run], methods: Sequence[Method], metric: Metric) -> str:
    reference = _reference(methods)
    header = ["method", "seeds"]
    header += [f"{which} {metric.column}" for which in ("best", "last", "mean of last 10")]
    header += ["gain over FedAvg"] if reference else []
    header += ["s / round", "MB / round"]
    lines = [header, *(_cells(method, metric, reference) for method in methods)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def row(cells):
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    text = [row(header), rule, *map(row, lines[1:])]
    setting = _setting(runs[0], differing_fields(runs))
    text = [setting, "", *text] if setting else text
    differing = [
        name
        for name in differing_fields(runs)
        if name.split(".")[0] not in _COMPARED and not _swept(name, runs)
    ]
    if differing:
        text += ["", f"Warning: the runs also differ in {', '.join(differing)}."]
    return "\n".join(text)


def _swept(field: str, runs: Sequence[Run]) -> bool:
    """Return whether every method was run with the same values of a field, as in a sweep."""
    values: dict[str, set[str]] = {}
    for run in runs:
        label = method_label(run.config)
        values.setdefault(label, set()).add(repr(dict(flatten(run.config)).get(field)))
    return len(set(map(frozenset, values.values()))) == 1


def _setting(run: Run, differing: Sequence[str]) -> str:
    """The settings that all runs share, in one line."""
    fields = dict(flatten(run.config))
    fields["dataset"] = run.summary.get("dataset", fields.get("dataset"))  # given, maybe, as arrays
    return ", ".join(f"{n}={fields[n]}" for n in _SETTING if n in fields and n not in differing)


def _cells(method: Method, metric: Metric, reference: Method | None) -> list[str]:
    cells = [method.label, str(len(method.runs))]
    cells += [metric.write_spread(method.values(name)) for name in metric.fields]
    if reference:
        gains = [] if method is reference else _gains(method, reference, metric)
        cells.append("" if method is reference else metric.write_spread(gains, sign="+"))
    seconds, traffic = method.values("seconds_per_round"), _megabytes(method)
    cells.append(f"{statistics.fmean(seconds):.2f}" if seconds else "-")
    cells.append(f"{traffic:.2f}" if traffic is not None else "-")
    return cells


def _reference(methods: Sequence[Method]) -> Method | None:
    """Plain FedAvg, if exactly one method is."""
    plain = [method for method in methods if method_label(method.runs[0].config) == "fedavg"]
    return plain[0] if len(plain) == 1 and len(methods) > 1 else None


def _gains(method: Method, reference: Method, metric: Metric) -> list[float]:
    """Return gains over `reference`: one a seed if both have the same seeds, else one of means."""
    own, base = (each.values(metric.fields[-1]) for each in (method, reference))
    seeds = [[run.config.get("seed") for run in each.runs] for each in (method, reference)]
    if seeds[0] == seeds[1] and len(own) == len(base):
        return [metric.gain(a, b) for a, b in zip(own, base, strict=True)]
    return [metric.gain(statistics.fmean(own), statistics.fmean(base))] if own and base else []


def _megabytes(method: Method) -> float | None:
    """Mean traffic of a round, both ways, in 10^6 bytes; None when it was not recorded."""
    rows = [row for run in method.runs for row in run.rows if "bytes_up" in row]
    total = sum(row["bytes_up"] + row.get("bytes_down", 0) for row in rows)
    return total / len(rows) / 1e6 if rows else None


def _csv(methods: Sequence[Method], metric: Metric) -> str:
    """Return one line a method; accuracies as fractions, spread empty for a single seed."""
    reference = _reference(methods)
    figures = (*metric.fields, "gain_over_fedavg")
    header = [
        "method",
        "seeds",
        *(f"{name}_{kind}" for name in figures for kind in ("mean", "std")),
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, "seconds_per_round", "megabytes_per_round"])
    for method in methods:
        line: list[Any] = [method.label, len(method.runs)]
        for name in metric.fields:
            line += _mean_and_std(method.values(name))
        gains = _gains(method, reference, metric) if reference and method is not reference else []
        line += _mean_and_std(gains)
        seconds = method.values("seconds_per_round")
        line += [statistics.fmean(seconds) if seconds else "", _megabytes(method)]
        writer.writerow(line)
    return buffer.getvalue()


def _mean_and_std(values: Sequence[float]) -> list[float | str]:
    mean = statistics.fmean(values) if values else math.nan
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return ["" if math.isnan(value) else value for value in (mean, spread)]
