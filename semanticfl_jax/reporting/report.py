"""Comparison of finished runs: a table of methods, with spread over seeds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from semanticfl_jax.errors import DivergedError
from semanticfl_jax.files import write_text
from semanticfl_jax.reporting import caveats, client_tests, markdown, tables
from semanticfl_jax.reporting.comparison import Comparison, megabytes
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.runs import Method


def compare(
    directories: Sequence[str | os.PathLike],
    out: str | os.PathLike | None = None,
    paper: Paper | None = None,
    diverged: Sequence[str | os.PathLike] = (),
) -> str:
    """Return a Markdown table of finished runs, one line a method.

    The task's metric is given as mean ± sample standard deviation over seeds: of the best round (an
    optimistic figure), the last, and the mean of the last 10 evaluated; accuracies are percentages.
    When plain FedAvg is among the methods, the gain is over its mean of the last 10, above 0 where
    the method is better: seed by seed, over the seeds that both have, so that what the seed decides
    for both cancels. Where they have none in common it is the difference of their means, and says
    that it is not paired.

    Args:
      directories: finished runs.
      out: where to write the table (comparison.md, .csv, .tex, comparison_seeds.csv) and plots
        (comparison, comparison_bars, comparison_traffic and, of many methods, comparison_panels),
        which the returned text then names; None writes nothing.
      paper: size, font and file formats of the plots.
      diverged: runs that were stopped for that, which the table only names.

    Raises:
      ReportError: as `Comparison.load`.
    """
    comparison = Comparison.load(directories, diverged)
    text = as_text(comparison)
    if out is not None:
        paths = write(comparison, Path(out), paper or Paper())
        text += "\n\n" + "\n".join(f"wrote {path}" for path in paths)
    return text


def as_text(comparison: Comparison) -> str:
    """Return the tables and warnings of a comparison, in Markdown."""
    text = _table(comparison)
    of_clients = client_tests.table(comparison.methods, comparison.metric)
    return text if of_clients is None else f"{text}\n\n{of_clients}"


def write(comparison: Comparison, out: Path, paper: Paper) -> list[Path]:
    """Write the tables and plots of a comparison, and return their paths.

    Args:
      comparison: of finished runs.
      out: the directory; it is made.
      paper: size, font and file formats of the plots.
    """
    from semanticfl_jax.reporting.plots.comparison import plot_all

    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "comparison.md": as_text(comparison) + "\n",
        "comparison.csv": tables.by_method(comparison),
        "comparison_seeds.csv": tables.by_seed(comparison),
        "comparison.tex": tables.latex(comparison),
    }
    for name, content in texts.items():
        write_text(out / name, content)
    return [*(out / name for name in texts), *plot_all(comparison, out, paper, print)]


def compare_finished(names: Sequence[str], diverged: Sequence[str], workdir: Path) -> str:
    """Write the comparison of the runs of a sweep that did not diverge, and return its text.

    Args:
      names: of all runs, each the name of a folder.
      diverged: names of those that were stopped for that, which the comparison tells of.
      workdir: of the folders, and of what is written.

    Raises:
      DivergedError: if no run is left.
    """
    finished = [workdir / name for name in names if name not in diverged]
    stopped = [workdir / name for name in names if name in diverged]
    if not finished:
        raise DivergedError("no run is left: " + "; ".join(map(caveats.not_compared, stopped)))
    return compare(finished, out=workdir, diverged=stopped)


def _table(comparison: Comparison) -> str:
    header = ["method", "seeds"]
    header += [
        f"{which} {comparison.metric.column}" for which in ("best", "last", "mean of last 10")
    ]
    header += ["gain over FedAvg"] if comparison.reference else []
    header += ["s / round", "MB / round"]
    lines = [header, *(_cells(comparison, method) for method in comparison.methods)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def row(cells):
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return markdown.row(padded)

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    text = [row(header), rule, *map(row, lines[1:])]
    setting = ", ".join(f"{name}={value}" for name, value in comparison.setting().items())
    text = [setting, "", *text] if setting else text
    note = caveats.about_means(comparison)
    text += ["", note] if note else []
    for warning in caveats.warnings(comparison):
        text += ["", f"Warning: {warning}."]
    return "\n".join(text)


def _cells(comparison: Comparison, method: Method) -> list[str]:
    metric = comparison.metric
    cells = [method.label, str(len(method.runs))]
    cells += [method.spread(metric, name) for name in metric.fields]
    if comparison.reference:
        cells.append(comparison.write_gain(method))
    seconds, traffic = method.values("seconds_per_round"), megabytes(method)
    cells.append(f"{statistics.fmean(seconds):.2f}" if seconds else "-")
    cells.append(f"{traffic:.2f}" if traffic is not None else "-")
    return cells
