"""Accuracy of every class and every client over rounds, as heat maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.reporting.client_accuracy import client_accuracy
from semanticfl_jax.reporting.plots import drawing

#: More clients than this are shown as quantiles: as many rows, the worst at the bottom.
_MAX_CLIENTS = 100


@drawing.picture
def plot_accuracy_maps(
    rows: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    label_counts: np.ndarray,
    path: str | os.PathLike,
    note: str | None = None,
    *,
    about: str | None = None,
) -> None:
    """Draw two heat maps: classes by rounds, and clients by rounds.

    Clients are sorted by their accuracy in the last round.

    Args:
      rows: rounds as `metrics.read_metrics` returns them; those with `class_accuracy` are drawn.
      class_names: K names.
      label_counts: [N, K], training images of each class at each client.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
      about: what the run is: its method, data set and seed.
    """
    class_names = drawing.names(class_names)
    evaluated = [row for row in rows if row.get("class_accuracy") is not None]
    figure = drawing.figure(11.0, float(np.clip(2.2 + 0.2 * len(class_names), 4.2, 9.0)))
    drawing.note(figure, note)
    if not evaluated:
        figure.text(0.5, 0.5, "nothing measured yet", ha="center")
        drawing.save(figure, path)
        return
    rounds = [row["round"] for row in evaluated]
    classes = np.array([row["class_accuracy"] for row in evaluated], float).T  # null becomes NaN
    clients = np.stack([client_accuracy(column, label_counts) for column in classes.T], axis=1)
    left, right = figure.subplots(1, 2)

    _heat_map(left, classes, rounds, drawing.headline("Each class", about))
    step = max(1, -(-len(class_names) // 40))
    left.set_yticks(range(0, len(class_names), step), class_names[::step])
    left.set_ylabel("Class")

    title = f"Each of {len(clients):,} clients, on its own label distribution"
    if len(clients) > _MAX_CLIENTS:
        shares = np.linspace(1, 0, _MAX_CLIENTS)
        image = _heat_map(right, np.nanquantile(clients, shares, axis=0), rounds, title)
        places = np.linspace(0, _MAX_CLIENTS - 1, 5)
        right.set_yticks(places, ["best", "75 %", "median", "25 %", "worst"])
        right.set_ylabel("Clients, by rank in the round")
    else:
        order = np.argsort(-np.nan_to_num(clients[:, -1]), kind="stable")
        image = _heat_map(right, clients[order], rounds, title)
        step = max(1, -(-len(clients) // 40))
        right.set_yticks(range(0, len(clients), step), [str(n) for n in order[::step]])
        right.set_ylabel("Client, by accuracy in the last round")
    figure.colorbar(image, ax=(left, right), label="Test accuracy (%)", fraction=0.04, pad=0.02)
    drawing.save(figure, path)


def _heat_map(axes, values: np.ndarray, rounds: Sequence[int], title: str):
    """Draw fractions [rows, rounds] as colours from 0 to 100 %; NaN stays white."""
    image = axes.imshow(
        100 * values, aspect="auto", interpolation="nearest", cmap="viridis", vmin=0, vmax=100
    )
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("Round")
    step = -(-len(rounds) // 12)
    axes.set_xticks(range(0, len(rounds), step), [str(number) for number in rounds[::step]])
    axes.tick_params(axis="y", labelsize=7)
    return image
