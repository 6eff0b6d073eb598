"""How well models do on every client's own test images: distribution, and before against after."""

from __future__ import annotations

import os

import numpy as np

from semanticfl_jax.reporting.client_tests import MODELS, TITLES, Tests
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.drawing import COLOURS, DASHES


@drawing.picture
def plot_client_tests(
    tests: Tests,
    path: str | os.PathLike,
    note: str | None = None,
    *,
    metric: Metric = ACCURACY,
    about: str | None = None,
) -> None:
    """Draw the clients' figures of the last test.

    At the left, how many clients have which figure, with the worst decile's end of each model as a
    line; at the right, if more than one model was tested, each client's figure with the server's
    model against that with the clients' own and the fine-tuned ones.

    Args:
      tests: {model: (headline [N], loss [N])}.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
      metric: by which the task judges models.
      about: what the run is, in the title.
    """
    models = [model for model in MODELS if model in tests]
    figure = drawing.figure(9.6 if len(models) > 1 else 5.2, 3.8)
    drawing.note(figure, note)
    axes = np.atleast_1d(figure.subplots(1, 2 if len(models) > 1 else 1))
    values = {model: metric.factor * np.asarray(tests[model][0], float) for model in models}
    known = {model: x[np.isfinite(x)] for model, x in values.items()}
    _histogram(axes[0], known, metric, about)
    if len(models) > 1:
        _before_and_after(axes[1], values, metric)
    drawing.save(figure, path)


def _histogram(axes, known: dict[str, np.ndarray], metric: Metric, about: str | None) -> None:
    everything = np.concatenate(list(known.values()))
    if not len(everything):
        axes.text(0.5, 0.5, "no client has test images", ha="center", transform=axes.transAxes)
        return
    low, high = 0.0, 100.0
    if not metric.is_accuracy:
        low, high = float(everything.min()), float(everything.max())
    bins = np.linspace(low, high, 21) if high > low else 1
    for index, (model, x) in enumerate(known.items()):
        tail = np.quantile(x, 0.1 if metric.higher else 0.9)
        style = {"color": COLOURS[index], "linestyle": DASHES[index]}
        side = "below" if metric.higher else "above"
        label = f"{TITLES[model]}: mean {x.mean():.3g}, worst tenth {side} {tail:.3g}"
        axes.hist(x, bins=bins, histtype="step", linewidth=1.6, label=label, **style)
        axes.axvline(tail, ymax=0.8, linewidth=0.9, **style)
    title = drawing.headline("Clients' own test images", about)
    drawing.label(axes, title, metric.axis, "Clients")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=8, loc="upper left", **drawing.LEGEND)


def _before_and_after(axes, values: dict[str, np.ndarray], metric: Metric) -> None:
    before = values["global"]
    for index, (model, after) in enumerate(values.items()):
        if model != "global":
            style = {"color": COLOURS[index], "alpha": 0.6, "linewidths": 0, "s": 22}
            better = np.sum(after > before if metric.higher else after < before)
            label = f"{TITLES[model]}: better for {better} of {np.isfinite(after).sum()}"
            axes.scatter(before, after, label=label, **style)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=0.9)
    drawing.label(axes, "Each client", f"With the server's model: {metric.axis}", "With another")
    axes.legend(fontsize=8, **drawing.LEGEND)
