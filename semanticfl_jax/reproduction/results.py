"""A table's results: ours with spread and gain, the published number, and the difference."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from semanticfl_jax.files import write_text
from semanticfl_jax.reporting import markdown
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.report import compare
from semanticfl_jax.reporting.runs import Method
from semanticfl_jax.reporting.runs import Run as FinishedRun
from semanticfl_jax.reporting.spread import some_of
from semanticfl_jax.reproduction.plan import Plan
from semanticfl_jax.reproduction.record import Record

_NOTE = (
    "Accuracies in per cent: mean ± sample standard deviation over seeds. The gain over FedAvg is "
    "in the mean of the last 10, seed by seed over the seeds that both have. Published numbers "
    "are of the best round, which is optimistic: the difference is our best minus the published."
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What came out for a method in a column.

    Attributes:
      column, method: where it stands.
      best, last, mean: metrics of the finished runs, a number a seed; fractions, of accuracies.
      gains: over FedAvg in `mean`; a number a seed, or of the means, or none.
      gain: the same as text.
      published: of the best round, in per cent; None: not known.
      wanted: seeds that were asked for.
    """

    column: str
    method: str
    best: Sequence[float]
    last: Sequence[float]
    mean: Sequence[float]
    gains: Sequence[float]
    gain: str
    published: float | None
    wanted: int

    @property
    def difference(self) -> float | None:
        """Our best minus the published number, in points; None where one is not known."""
        if self.published is None or not self.best:
            return None
        return 100 * statistics.fmean(self.best) - self.published


@dataclasses.dataclass(frozen=True)
class Results:
    """All cells of a table, and the finished runs that they are of."""

    cells: tuple[Cell, ...]
    runs: tuple[FinishedRun, ...]
    metric: Metric


def collect(plan: Plan) -> Results:
    """Return what the finished runs of a table come to.

    Args:
      plan: made when no more runs are under way.
    """
    cells, runs, metric = [], [], ACCURACY
    for column in plan.table.columns:
        mine = [each for each in plan.runs if each.run.column == column]
        paths = plan.finished_paths(column)
        comparison = Comparison.load(paths) if paths else None
        method_of = {each.run.name: each.run.method for each in mine}
        found = {}
        if comparison is not None:
            found = {method_of[each.runs[0].path.name]: each for each in comparison.methods}
            runs += comparison.runs
            metric = comparison.metric
        for method in plan.table.methods:
            wanted = sum(each.run.method == method for each in mine)
            published = plan.table.published.get(method, {}).get(column)
            cells.append(_cell(column, method, found.get(method), comparison, published, wanted))
    return Results(tuple(cells), tuple(runs), metric)


def _cell(
    column: str,
    method: str,
    found: Method | None,
    comparison: Comparison | None,
    published: float | None,
    wanted: int,
) -> Cell:
    if found is None or comparison is None:
        return Cell(column, method, (), (), (), (), "", published, wanted)
    best, last, mean = (found.values(name) for name in comparison.metric.fields)
    gains, gain = comparison.gains(found), comparison.write_gain(found)
    return Cell(column, method, best, last, mean, gains, gain, published, wanted)


def write_results(plan: Plan, record: Record) -> str:
    """Write the table, and a comparison with plots of every column; return the text.

    Args:
      plan: as of `collect`.
      record: of the table's directory.

    Returns:
      What `table.md` holds, and the paths written: `table.md`, `table.csv`, and what
      `reporting.report.compare` writes, in a folder a column.
    """
    results, directory = collect(plan), plan.directory
    text = as_text(plan, results, record)
    write_text(directory / "table.md", text)
    write_text(directory / "table.csv", as_csv(results.cells))
    written = [directory / "table.md", directory / "table.csv"]
    for column in plan.table.columns:
        paths = plan.finished_paths(column)
        if paths:
            compare(paths, out=directory / column)
            written.append(directory / column)
    return text + "\n" + "\n".join(f"wrote {path}" for path in written)


def as_text(plan: Plan, results: Results, record: Record) -> str:
    """Return the table as Markdown, with what it takes to make it again."""
    table, metric = plan.table, results.metric
    done = sum(each.finished for each in plan.runs)
    lines = [f"# {table.name}, scale {table.scale}", "", f"{table.about}.", ""]
    if done < len(plan.runs):
        lines += [f"**Not complete: {done} of {len(plan.runs)} runs are finished.**", ""]
    lines += [_NOTE]
    if table.sources:
        lines += [f"Published: {table.sources}."]
        if table.scale != "full":
            lines += [f"The scale {table.scale} is another protocol than the published one's."]
    for column in table.columns:
        cells = [cell for cell in results.cells if cell.column == column]
        lines += ["", f"## {column}", "", *_rows(cells, metric)]
    return "\n".join([*lines, "", *_origin(plan, results, record)]) + "\n"


def _rows(cells: Sequence[Cell], metric: Metric) -> list[str]:
    published = any(cell.published is not None for cell in cells)
    header = ["method", "seeds"]
    header += [f"{which} {metric.column}" for which in ("best", "last", "mean of last 10")]
    header += ["gain over FedAvg"] + ["published %", "difference"] * published
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for cell in cells:
        seeds = f"{len(cell.best)}" + (f" of {cell.wanted}" if len(cell.best) < cell.wanted else "")
        line = [cell.method, seeds]
        line += [
            metric.write_spread(values) + some_of(len(values), len(cell.best))
            for values in (cell.best, cell.last, cell.mean)
        ]
        line.append(cell.gain)
        if published:
            line.append("" if cell.published is None else f"{cell.published:.2f}")
            line.append("" if cell.difference is None else f"{cell.difference:+.2f}")
        lines.append(line)
    return list(map(markdown.row, lines))


def _origin(plan: Plan, results: Results, record: Record) -> list[str]:
    """Return how the table was made: command, protocol, versions, machine, hours, energy."""
    summaries = [run.summary for run in results.runs]
    trained = math.fsum(s["train_seconds"] + (s.get("compile_seconds") or 0) for s in summaries)
    lines = ["## How it was made", "", "```sh"]
    lines += list(dict.fromkeys(part["command"] for part in record.parts)) or ["# no run here"]
    lines += ["```", "", f"- protocol: {plan.protocol}"]
    for title, values in (
        ("device", (s.get("device") for s in summaries)),
        ("commit", (s.get("commit") or "unknown" for s in summaries)),
        ("versions", (_in_words(s.get("versions") or {}) for s in summaries)),
    ):
        lines.append(f"- {title}: {'; '.join(_distinct(values)) or 'unknown'}")
    lines += [
        f"- hours: {record.hours():.2f} from the first run's start to the last one's end, pauses "
        f"left out; {trained / 3600:.2f} of compiling and training in all runs together",
        f"- energy: {record.energy()}",
    ]
    return lines


def as_csv(cells: Sequence[Cell]) -> str:
    """Return the cells as CSV, a line a cell: fractions; published and difference in per cent."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    kinds = ("best", "last", "mean_last10", "gain_over_fedavg")
    spread = [f"{kind}_{figure}" for kind in kinds for figure in ("mean", "std")]
    writer.writerow(["column", "method", "seeds", *spread, "published", "difference"])
    for cell in cells:
        line: list[Any] = [cell.column, cell.method, len(cell.best)]
        for values in (cell.best, cell.last, cell.mean, cell.gains):
            line.append(statistics.fmean(values) if values else "")
            line.append(statistics.stdev(values) if len(values) > 1 else "")
        line += ["" if each is None else each for each in (cell.published, cell.difference)]
        writer.writerow(line)
    return buffer.getvalue()


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
