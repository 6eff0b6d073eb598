"""Plots of methods beside one another: curves, small multiples, and bars of the final metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.bars import LABEL_WIDTH, draw_bars
from semanticfl_jax.reporting.plots.curves import round_axis
from semanticfl_jax.reporting.plots.drawing import COLOURS, DASHES
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.series import Curve, Rows, bytes_of, cost_curve, mean_curve
from semanticfl_jax.types import Say

#: With more curves than this the legend stands outside, and each has a panel of its own, too.
MANY = 6

#: A legend that would take more than this share of a picture's height stands outside, too.
_LEGEND_SHARE = 0.4

#: Inches at the left of all panels, for the numbers and the name of their axis; and beside each.
_MARGIN, _GAP = 0.55, 0.08


@drawing.picture
def plot_all(comparison: Comparison, out: Path, paper: Paper, say: Say) -> list[Path]:
    """Draw all plots of a comparison into a directory, and return the paths of those drawn.

    Args:
      comparison: what to draw.
      out: the directory.
      paper: formats, size and font.
      say: takes a warning of a plot that could not be drawn.
    """
    metric, title = comparison.metric, comparison.title()
    curves = curves_of(comparison)
    finals = {
        method.label: [metric.factor * value for value in method.values(metric.fields[-1])]
        for method in comparison.methods
    }
    counts = {method.label: len(method.runs) for method in comparison.methods}
    few = caveats.all_evaluations(comparison)
    drawings = {"comparison": lambda: draw_curves(curves, metric, title, paper)}
    if len(curves) > MANY:
        base = comparison.reference.label if comparison.reference else None
        drawings["comparison_panels"] = lambda: draw_panels(curves, metric, title, paper, base)
    told = [row for run in comparison.runs for row in run.rows]
    if any(bytes_of(row) for row in told):
        sent = {
            method.label: cost_curve(
                [run.rows for run in method.runs], metric.name, lambda row: bytes_of(row) / 1e6
            )
            for method in comparison.methods
        }
        drawings["comparison_traffic"] = lambda: draw_traffic(sent, metric, title, paper)
    drawings["comparison_bars"] = lambda: draw_bars(finals, metric, title, paper, counts, few)
    drawn: list[Path] = []

    def save(draw: Callable[[], Any], paths: list[Path]) -> None:
        figure = draw()
        for path in paths:
            drawing.save(figure, path)
            drawn.append(path)

    with paper.style():
        for name, draw in drawings.items():
            drawing.attempt(out / name, partial(save, draw, paper.files(out / name)), say)
    return drawn


def curves_of(comparison: Comparison) -> dict[str, Curve]:
    """Return the curve of each method, by its label."""
    return {
        method.label: mean_curve([run.rows for run in method.runs], comparison.metric.name)
        for method in comparison.methods
    }


@drawing.picture
def comparison_figure(comparison: Comparison, paper: Paper):
    """Return the figure of the methods' curves, as `plot_all` writes it."""
    with paper.style():
        return draw_curves(curves_of(comparison), comparison.metric, comparison.title(), paper)


@drawing.picture
def plot_comparison(
    runs: Mapping[str, Sequence[Rows]],
    path: str | Path,
    *,
    metric: Metric = ACCURACY,
    title: str = "",
) -> None:
    """Plot each method's mean, with a band of one sample standard deviation over seeds.

    Args:
      runs: for each method's label, the rows of each of its seeds. Only rounds that every seed
        evaluated are drawn.
      path: file to write; its ending says the format.
      metric: by which the task judges models.
      title: what is compared, such as the data set.
    """
    curves = {label: mean_curve(seeds, metric.name) for label, seeds in runs.items()}
    with Paper().style():
        drawing.save(draw_curves(curves, metric, title, Paper()), path)


def draw_curves(
    curves: Mapping[str, Curve],
    metric: Metric,
    title: str,
    paper: Paper,
    costs: Mapping[str, np.ndarray] | None = None,
):
    """Return a figure of all methods' curves, with the legend outside where it is long.

    Args:
      curves: by label.
      metric: by which the task judges models.
      title: what is compared.
      paper: size and font.
      costs: by label, float64 [M], what stands along the horizontal axis in place of the rounds;
        None: those do.
    """
    many = len(curves) > MANY
    labels = _labels(curves)
    rows = sum(label.count("\n") + 1 for label in labels)
    line = 1.35 * paper.points / 72  # inches
    height = 0.62 * paper.width + 2 * line
    outside = many or rows * line > _LEGEND_SHARE * height
    below = paper.narrow and outside
    height += (rows / _columns(labels, paper) + 2) * line if below else 0
    if outside and not below:
        height = max(height, (rows + 2) * line)
    figure = drawing.figure(paper.width, height)
    axes = figure.subplots()
    for index, (label, curve) in enumerate(zip(labels, curves.values(), strict=True)):
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
        x = curve.rounds if costs is None else list(costs.values())[index]
        _draw(axes, curve, metric, x, label=label, linewidth=1.0 if many else 1.6, **style)
        if curve.seeds > 1:
            alpha = 0.10 if many else 0.18
            axes.fill_between(
                x, *_band(curve, metric), color=style["color"], alpha=alpha, linewidth=0
            )
    drawing.label(axes, "", "Round", metric.axis)
    drawing.heading(figure, _headline(title, curves.values(), metric), paper.width, paper.points)
    if costs is None:
        round_axis(axes)
    if axes.lines and outside:
        place = "outside lower center" if below else "outside right upper"
        columns = _columns(labels, paper) if below else 1
        # In the order of the curves' ends, which is how a reader looks for them.
        ends = [_last(curve) * (-1 if metric.higher else 1) for curve in curves.values()]
        lines = [axes.lines[index] for index in np.argsort(ends, kind="stable")]
        figure.legend(handles=lines, loc=place, ncols=columns, frameon=False, fontsize="small")
    elif axes.lines:
        axes.legend(**drawing.LEGEND, fontsize="small" if paper.narrow else "medium")
    return figure


def draw_traffic(
    sent: Mapping[str, tuple[np.ndarray, Curve]], metric: Metric, title: str, paper: Paper
):
    """Return a figure of the metric over what was sent until then, both ways.

    The axis is logarithmic where some methods send ten times as much as others. A method that sends
    nothing, which has no place on it, is a level line at its last value.

    Args:
      sent: for each method's label, 10^6 bytes [M], and its curve over the same rounds.
      metric: by which the task judges models.
      title: what is compared.
      paper: size and font.
    """
    sent = _with_silent(sent)
    costs = {label: x for label, (x, _) in sent.items()}
    figure = draw_curves({n: curve for n, (_, curve) in sent.items()}, metric, title, paper, costs)
    (axes,) = figure.axes
    axes.set_xlabel("MB sent, up and down")
    ends = [x[-1] for x in costs.values() if len(x) and x[-1] > 0]
    if ends and max(ends) >= 10 * min(ends):
        axes.set_xscale("log")
        # The usual numbers are formulas, and text is text here.
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter("")
    return figure


def _with_silent(
    sent: Mapping[str, tuple[np.ndarray, Curve]],
) -> dict[str, tuple[np.ndarray, Curve]]:
    """Return the curves with level ones for methods that send nothing, over what others send."""
    told = np.concatenate([x[x > 0] for x, _ in sent.values()])
    found = {}
    for label, (x, curve) in sent.items():
        known = np.flatnonzero(np.isfinite(curve.mean))
        if x.any() or not len(known) or not len(told):
            found[label] = (x, curve)
            continue
        last = known[[-1, -1]]
        level = Curve(curve.rounds[last], curve.mean[last], curve.spread[last], curve.seeds)
        found[f"{label} (sends nothing)"] = np.array([told.min(), told.max()]), level
    return found


def draw_panels(
    curves: Mapping[str, Curve],
    metric: Metric,
    title: str,
    paper: Paper,
    reference: str | None = None,
):
    """Return a figure with a panel for each method: its curve before those of all, in grey.

    Args:
      curves: by label.
      metric: by which the task judges models.
      title: what is compared.
      paper: size and font.
      reference: label of the method whose curve is dashed in every panel.
    """
    across = 3 if paper.narrow else 4
    down = math.ceil(len(curves) / across)
    letters = int(((paper.width - _MARGIN) / across - _GAP) * 72 / (0.55 * paper.points))
    heads = [drawing.wrap(name, letters) for name in curves]
    lines = [head.count("\n") for head in heads]  # beyond the first
    more = sum(max(lines[start : start + across]) for start in range(0, len(lines), across))
    height = 0.4 + down * 0.85 * paper.width / across + more * 1.2 * paper.points / 72
    figure = drawing.figure(paper.width, height)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for place in range(len(curves), across * down):
        panels.flat[place].remove()
        panels.flat[place - across].tick_params(labelbottom=True)
    for axes, head, (name, curve) in zip(panels.flat, heads, curves.items(), strict=False):
        for other, grey in curves.items():
            if other != name:
                _draw(axes, grey, metric, color="0.85", linewidth=0.6)
        if reference is not None and name != reference:
            _draw(axes, curves[reference], metric, color="0.3", linestyle="--", linewidth=0.9)
        if curve.seeds > 1:
            band = _band(curve, metric)
            axes.fill_between(curve.rounds, *band, color=COLOURS[0], alpha=0.2, linewidth=0)
        _draw(axes, curve, metric, color=COLOURS[0], linewidth=1.4)
        drawing.label(axes, "", "", "")
        axes.set_title(head, fontsize="small", loc="left")
        axes.tick_params(labelsize="small")
        round_axis(axes)
    line = f"{_headline(title, curves.values(), metric)}"
    line += f"; dashed: {reference}" if reference is not None else ""
    drawing.heading(figure, line, paper.width, paper.points)
    figure.supxlabel("Round", fontsize="medium")
    figure.supylabel(metric.axis, fontsize="medium")
    return figure


def _draw(axes, curve: Curve, metric: Metric, x: np.ndarray | None = None, **style) -> None:
    marks = drawing.marks(curve.mean)
    axes.plot(curve.rounds if x is None else x, metric.factor * curve.mean, **marks, **style)


def _band(curve: Curve, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Return mean - and + standard deviation [M] as drawn: no accuracy is below 0 or above 100."""
    low, high = (metric.factor * (curve.mean + s * curve.spread) for s in (-1, 1))
    return np.maximum(low, metric.least), np.minimum(high, metric.most)


def _last(curve: Curve) -> float:
    known = curve.mean[np.isfinite(curve.mean)]
    return float(known[-1]) if len(known) else np.nan


def _labels(curves: Mapping[str, Curve]) -> list[str]:
    """Return what a legend says, in lines: with the number of seeds, where that is not one."""
    if len({curve.seeds for curve in curves.values()}) == 1:
        return [drawing.wrap(name, LABEL_WIDTH) for name in curves]
    return [
        drawing.wrap(f"{name} ({curve.seeds} seed{'s' * (curve.seeds > 1)})", LABEL_WIDTH)
        for name, curve in curves.items()
    ]


def _columns(labels: Sequence[str], paper: Paper) -> int:
    """Return how many columns of a legend below a picture fit its width."""
    longest = max(len(line) for label in labels for line in label.split("\n"))
    return max(1, int(paper.width * 72 / ((longest + 8) * 0.48 * paper.points)))


def _headline(title: str, curves: Iterable[Curve], metric: Metric) -> str:
    counts = {curve.seeds for curve in curves}
    seeds = f"{counts.pop()} seeds" if len(counts) == 1 and counts != {1} else "seeds"
    several = seeds != "seeds" or len(counts) > 1
    what = f"mean over {seeds} ± standard deviation" if several else metric.title.lower()
    return f"{title}: {what}" if title else what[:1].upper() + what[1:]
