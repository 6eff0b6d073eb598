"""Plots of runs, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.drawing import COLOURS, DASHES


def plot_curves(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    note: str | None = None,
    *,
    metric: str = "test_accuracy",
    higher: bool = True,
) -> None:
    """Test accuracy, training and test loss, and epsilon where it is told, over a run's rounds.

    Args:
      rows: rounds as `metrics.read_metrics` returns them; missing values leave a gap.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
      metric: what is drawn in the place of the accuracy, as in "test_mse".
      higher: whether more of it is better.
    """
    spent = _series(rows, "epsilon")
    panels = 3 if len(spent[0]) else 2
    figure = drawing.figure(4.8 * panels, 3.8)
    drawing.note(figure, note)
    left, right, *last = figure.subplots(1, panels)
    scale, unit, form, title, axis = _shown(metric)
    rounds, values = _series(rows, metric)
    marker = "o" if len(rounds) <= 30 else None
    if len(rounds):
        left.plot(rounds, scale * values, color=COLOURS[0], marker=marker, markersize=3)
    if np.isfinite(values).any():
        best = int((np.nanargmax if higher else np.nanargmin)(values))
        left.plot(rounds[best], scale * values[best], "*", color=COLOURS[1], markersize=11)
        label = f"best {scale * values[best]:{form}}{unit} (round {rounds[best]})"
        left.text(0.98, 0.04, label, transform=left.transAxes, ha="right", color=COLOURS[1])
    drawing.label(left, title, "Round", axis)
    for index, (name, title) in enumerate((("train_loss", "train"), ("test_loss", "test"))):
        rounds, loss = _series(rows, name)
        if len(rounds):
            marker = "o" if len(rounds) <= 30 else None
            style = {"color": COLOURS[index], "linestyle": DASHES[index], "marker": marker}
            right.plot(rounds, loss, label=title, markersize=3, **style)
    drawing.label(right, "Loss", "Round", "Loss (nats)" if metric == "test_accuracy" else "Loss")
    if right.lines:
        right.legend(frameon=False)
    for axes in last:
        axes.plot(*spent, color=COLOURS[0])
        drawing.label(axes, "Privacy spent", "Round", "epsilon")
    for axes in (left, right, *last):
        _round_axis(axes)
    drawing.save(figure, path)


def plot_feature_maps(
    maps: Mapping[str, Mapping[str, float]], path: str | os.PathLike, note: str | None = None
) -> None:
    """Which layer carries the class meaning: separability and weight of each feature map.

    Args:
      maps: name to its `separability`, `weight` and `dimensions`, in the network's order.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
    """
    figure = drawing.figure(8.0, 1.6 + 0.42 * len(maps))
    drawing.note(figure, note)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{name} ({int(m['dimensions'])} d)" for name, m in maps.items()]
    titles = {
        "separability": ("Class separability", "between / within scatter"),
        "weight": ("Weight in the anchors", "share"),
    }
    for axes, (field, (title, label)) in zip((left, right), titles.items(), strict=True):
        values = [m[field] if m[field] is not None else np.nan for m in maps.values()]
        bars = axes.barh(names, values, color=COLOURS[0], height=0.65)
        axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=8)
        axes.margins(x=0.18)
        drawing.label(axes, title, label, "")
    left.invert_yaxis()
    drawing.save(figure, path)


def plot_comparison(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: str | os.PathLike
) -> None:
    """Mean test accuracy of each method, with a band of one sample standard deviation over seeds.

    Args:
      runs: for each method's label, the rows of each of its seeds. Only rounds that every seed
        evaluated are drawn.
      path: PNG file to write.
    """
    figure = drawing.figure(7.2, 4.4)
    axes = figure.subplots()
    for index, (label, seeds) in enumerate(runs.items()):
        curves = [dict(zip(*_series(rows, "test_accuracy"), strict=True)) for rows in seeds]
        rounds = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = 100 * np.array([[curve[r] for r in rounds] for curve in curves])
        mean = values.mean(axis=0)
        name = f"{label} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        colour = COLOURS[index % len(COLOURS)]
        dash = DASHES[index % len(DASHES)]
        axes.plot(rounds, mean, color=colour, linestyle=dash, linewidth=1.8, label=name)
        if len(seeds) > 1:
            spread = values.std(axis=0, ddof=1)
            axes.fill_between(
                rounds, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
    several = any(len(seeds) > 1 for seeds in runs.values())
    title = "Mean over seeds ± standard deviation" if several else "Test accuracy"
    drawing.label(axes, title, "Round", "Test accuracy (%)")
    _round_axis(axes)
    if axes.lines:
        axes.legend(frameon=False)
    drawing.save(figure, path)


def _shown(metric: str) -> tuple[float, str, str, str, str]:
    """Return how a figure is written: factor, unit, number format, title and label of its axis."""
    if metric == "test_accuracy":
        return 100.0, " %", ".2f", "Accuracy", "Test accuracy (%)"
    words = metric.replace("_", " ")
    title = words.removeprefix("test ")
    return 1.0, "", ".4g", title[:1].upper() + title[1:], words[:1].upper() + words[1:]


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rounds `[M]` that have the field `name`, and its values `[M]`, NaN where it is null."""
    present = [row for row in rows if name in row]
    values = [np.nan if row[name] is None else row[name] for row in present]
    return np.array([row["round"] for row in present], int), np.array(values, float)


def _round_axis(axes) -> None:
    """Whole numbers along the horizontal axis, for one round too; a note where nothing is drawn."""
    drawn = [x for line in axes.lines for x in line.get_xdata()]
    if not drawn:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
        axes.set_xticks([])
        axes.set_yticks([])
    elif min(drawn) == max(drawn):
        axes.set_xticks([int(drawn[0])])
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
