"""Plots of runs, as PNG files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.drawing import COLOURS, DASHES
from semanticfl_jax.reporting.series import series

#: What the names of the terms of the training loss begin with in a row.
_TERM = "train_loss_"


@drawing.picture
def plot_curves(
    rows: Sequence[Mapping[str, Any]],
    path: str | os.PathLike,
    note: str | None = None,
    *,
    metric: Metric = ACCURACY,
    about: str | None = None,
) -> None:
    """Plot the metric, the losses, and epsilon where it is told, over a run's rounds.

    The losses are those of training, of each of its terms, and of the test.

    Args:
      rows: rounds as `metrics.read_metrics` returns them; missing values leave a gap.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
      metric: by which the task judges models.
      about: what the run is: its method, data set and seed.
    """
    spent = series(rows, "epsilon")
    panels = 3 if len(spent[0]) else 2
    figure = drawing.figure(4.8 * panels, 3.8)
    drawing.note(figure, note)
    left, right, *last = figure.subplots(1, panels)
    rounds, values = series(rows, metric.name)
    if len(rounds):
        left.plot(rounds, metric.factor * values, color=COLOURS[0], **_marks(values))
    if np.isfinite(values).any():
        best = int((np.nanargmax if metric.higher else np.nanargmin)(values))
        top = values[best]
        left.plot(rounds[best], metric.factor * top, "*", color=COLOURS[1], markersize=11)
        label = f"best {metric.write(top)}{metric.unit} (round {rounds[best]})"
        place = {"transform": left.transAxes, "ha": "right", "color": COLOURS[1]}
        on_white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 1.5}
        left.text(0.98, 0.04, label, bbox=on_white, **place)
    drawing.label(left, drawing.headline(metric.title, about), "Round", metric.axis)
    for index, (name, title) in enumerate(_losses(rows).items()):
        rounds, loss = series(rows, name)
        if len(rounds):
            colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
            right.plot(rounds, loss, label=title, color=colour, linestyle=dash, **_marks(loss))
    drawing.label(right, "Loss", "Round", "Loss (nats)" if metric.is_accuracy else "Loss")
    if right.lines:
        right.legend(**drawing.LEGEND)
    for axes in last:
        axes.plot(*spent, color=COLOURS[0])
        drawing.label(axes, "Privacy spent", "Round", "epsilon")
    for axes in (left, right, *last):
        round_axis(axes)
    drawing.save(figure, path)


@drawing.picture
def plot_feature_maps(
    maps: Mapping[str, Mapping[str, float]], path: str | os.PathLike, note: str | None = None
) -> None:
    """Draw which layer carries the class meaning: separability and weight of each feature map.

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


def _losses(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return how a legend calls the losses of rows, by their names there."""
    terms = sorted({name for row in rows for name in row if name.startswith(_TERM)})
    titles = drawing.names([name.removeprefix(_TERM) for name in terms])
    parts = {name: f"train, {title} alone" for name, title in zip(terms, titles, strict=True)}
    return {"train_loss": "train", "test_loss": "test", **parts}


def _marks(values: np.ndarray) -> dict[str, object]:
    """Return the style that marks every point of a short curve, and points between gaps."""
    return {"marker": "o", "markersize": 3} if len(values) <= 30 else drawing.marks(values)


def round_axis(axes) -> None:
    """Set whole numbers along the horizontal axis; write a note where nothing is drawn."""
    drawn = [x for line in axes.lines for x in line.get_xdata()]
    if not drawn:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center")
        axes.set_xticks([])
        axes.set_yticks([])
    elif min(drawn) == max(drawn):
        axes.set_xticks([int(drawn[0])])
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
