"""Bars of the final metric of methods, beside their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.drawing import COLOURS
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.spread import some_of

#: Letters in a line of a label.
LABEL_WIDTH = 30

#: Of bars, on which points and lines are seen.
_PALE = "#a9cbe4"

#: Height of a bar, and of the room around a label, in lines of text.
_BAR, _ROOM = 0.75, 0.35


def draw_bars(
    finals: Mapping[str, Sequence[float]],
    metric: Metric,
    title: str,
    paper: Paper,
    counts: Mapping[str, int] | None = None,
    evaluations: int | None = None,
):
    """Return a figure of the mean of the last 10 evaluations: a bar a method, the best above.

    Args:
      finals: for each method's label, the written value of each seed; none for one that has none.
      metric: by which the task judges models.
      title: what is compared.
      paper: size and font.
      counts: by label, of how many seeds they are some; None: they are all.
      evaluations: how many there are, if fewer than 10; None: there are more.
    """
    nowhere = -math.inf if metric.higher else math.inf
    order = sorted(
        finals,
        key=lambda name: np.mean(finals[name]) if finals[name] else nowhere,
        reverse=metric.higher,
    )
    labels = [drawing.wrap(name, LABEL_WIDTH) for name in order]
    # Along the axis are lines of text, so that a label of several has the room that it takes.
    heights = np.array([label.count("\n") + 1 + _ROOM for label in labels])
    places = np.cumsum(heights) - heights / 2
    figure = drawing.figure(paper.width, 1.0 + heights.sum() * 1.5 * paper.points / 72)
    axes = figure.subplots()
    for place, name in zip(places, order, strict=True):
        values = finals[name]
        if not values:
            continue
        mean = float(np.mean(values))
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        axes.barh(place, mean, height=_BAR, color=_PALE, xerr=spread, capsize=2)
        if len(values) > 1:
            axes.plot(values, [place] * len(values), ".", color=COLOURS[0], markersize=3.5)
        text = metric.write_spread([value / metric.factor for value in values])
        text += some_of(len(values), counts[name]) if counts else ""
        right = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": "small"}
        axes.text(1.02, place, text, **right)
    axes.set_yticks(places, labels)
    axes.set_ylim(heights.sum(), 0)
    which = "last 10" if evaluations is None else evaluations
    what = "The only evaluation" if evaluations == 1 else f"Mean of the {which} evaluations"
    headline = f"{what}{', ' if title else ''}{title}"
    drawing.label(axes, "", metric.axis, "")
    drawing.heading(figure, headline, paper.width, paper.points)
    axes.grid(axis="y", visible=False)
    if any(finals.values()) and min(min(v) for v in finals.values() if v) >= 0:
        axes.set_xlim(left=0)
    return figure
