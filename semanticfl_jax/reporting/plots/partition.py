"""Plots of a partition: who holds what, and how different the clients are."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.drawing import COLOURS

#: Above these a bubble chart is no longer readable, and a heat map takes its place.
_MAX_BUBBLE_CLIENTS = 40
_MAX_BUBBLE_CLASSES = 30

#: Columns of a heat map; with more clients, a column is the mean of neighbours.
_MAX_COLUMNS = 1000


@drawing.picture
def plot_partition(
    label_counts: np.ndarray,
    class_names: Sequence[str],
    path: str | os.PathLike,
    numbers: str | None = None,
) -> None:
    """Draw which client holds how many images of which class.

    A few clients and classes are shown as bubbles whose area is the count, more as a heat map. Many
    clients are sorted by their most frequent class, so that skew shows as a diagonal; thousands are
    averaged in groups of neighbours.

    Args:
      label_counts: `[N, K]` whole numbers, images of class k at client n.
      class_names: K names.
      path: PNG file to write.
      numbers: figures of the partition, a line below the title.

    Raises:
      SemanticFLError: if the shapes disagree.
    """
    counts = np.asarray(label_counts)
    if counts.ndim != 2 or counts.shape[1] != len(class_names) or not counts.size:
        raise SemanticFLError(
            f"label_counts must be [clients, {len(class_names)} classes], got {counts.shape}"
        )
    class_names = drawing.names(class_names)
    clients, classes = counts.shape
    sizes = counts.sum(axis=1)
    title = f"{sizes.sum():,} images, {clients:,} clients"
    title += f" ({sizes.min():,} to {sizes.max():,} images each)"
    few = clients <= _MAX_BUBBLE_CLIENTS
    bubbles = few and classes <= _MAX_BUBBLE_CLASSES
    horizontal = "Client"
    if not few:
        counts, each = _columns(_sorted_by_main_class(counts))
        horizontal = "Clients, sorted by most frequent class"
        horizontal += f" (means of {each})" if each > 1 else ""
    columns = len(counts)

    width = float(np.clip(3.5 + 0.32 * columns, 7.2, 13.0))
    figure = drawing.figure(width, float(np.clip(2.6 + 0.3 * classes, 4.6, 9.5)))
    bars, axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 4)})
    (_bubbles if bubbles else _heat_map)(figure, axes, counts)
    _bars(bars, counts.sum(axis=1), 0.8 if few else 1.0)
    drawing.label(bars, "\n".join(filter(None, (title, numbers))), "", "Images")
    margin = 0.7 if bubbles else 0.5
    axes.set_ylim(classes - 1 + margin, -margin)
    axes.set_xlabel(horizontal)
    axes.set_ylabel("Class")
    if few:
        axes.set_xticks(range(clients))
    elif columns < clients:
        axes.set_xticks([])  # a column of several clients has no number
    axes.set_xlim(-margin, columns - 1 + margin)
    step = max(1, -(-classes // 30))
    axes.set_yticks(range(0, classes, step), class_names[::step])
    axes.tick_params(axis="both", labelsize=8)
    drawing.save(figure, path)


@drawing.picture
def plot_clients(values: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Draw figures of all clients, a panel each: sorted curves, whose mean is a dashed line.

    Args:
      values: for each panel's title, a number of every client, `[N]`; NaN for one that has none.
      path: PNG file to write.
    """
    figure = drawing.figure(3.6 * len(values), 3.4)
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (title, column) in zip(panels, values.items(), strict=True):
        column = np.sort(column[np.isfinite(column)])[::-1]
        marker = "o" if len(column) <= _MAX_BUBBLE_CLIENTS else None
        rank = np.arange(1, len(column) + 1)
        axes.plot(rank, column, color=COLOURS[0], marker=marker, markersize=3)
        mean = column.mean()
        axes.axhline(mean, color=COLOURS[1], linestyle="--", linewidth=1)
        corner = {"transform": axes.transAxes, "ha": "right", "va": "top"}
        axes.text(0.98, 0.95, f"mean {mean:,.4g}", color=COLOURS[1], **corner)
        axes.set_ylim(0, 1.22 * max(column[0], 1e-9))  # room for the text above the curve
        drawing.label(axes, title, "Clients, sorted", "")
        axes.xaxis.get_major_locator().set_params(integer=True)
    drawing.save(figure, path)


def _sorted_by_main_class(counts: np.ndarray) -> np.ndarray:
    """Return clients by most frequent class, those with the most of it first; empty ones last."""
    largest = counts.max(axis=1)
    most_frequent = np.where(largest > 0, counts.argmax(axis=1), counts.shape[1])
    return counts[np.lexsort((-largest, most_frequent))]


def _columns(counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Return means of neighbours, at most `_MAX_COLUMNS`, and how many clients each is of."""
    each = -(-len(counts) // _MAX_COLUMNS)
    if each == 1:
        return counts, 1
    starts = np.arange(0, len(counts), each)
    members = np.diff(np.append(starts, len(counts)))
    return np.add.reduceat(counts, starts, axis=0) / members[:, None], each


def _bars(axes, heights: np.ndarray, width: float) -> None:
    """Draw a bar a column; many are one outline, since thousands would take minutes."""
    if len(heights) <= _MAX_BUBBLE_CLIENTS:
        axes.bar(np.arange(len(heights)), heights, color=COLOURS[0], width=width)
    else:
        edges = np.arange(len(heights) + 1) - 0.5
        axes.stairs(heights, edges, fill=True, color=COLOURS[0])


def _bubbles(figure, axes, counts: np.ndarray) -> None:
    """Draw circles whose area is the count, with a legend of three sizes."""
    clients, classes = counts.shape
    largest = max(int(counts.max()), 1)
    width, height = figure.get_size_inches()
    cell = 72 * min(0.8 * width / clients, 0.7 * height / classes)  # points
    scale = (0.95 * min(cell, 34.0)) ** 2 / largest
    client, label = np.nonzero(counts)
    axes.scatter(
        client,
        label,
        s=scale * counts[client, label],
        color=COLOURS[0],
        alpha=0.75,
        linewidths=0,
    )
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    shown = sorted({max(round(largest * share), 1) for share in (0.1, 0.5, 1.0)})
    handles = [
        axes.scatter([], [], s=scale * size, color=COLOURS[0], alpha=0.75, linewidths=0)
        for size in shown
    ]
    axes.legend(
        handles,
        [f"{size:,}" for size in shown],
        title="Images",
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        labelspacing=1.6,
        handletextpad=1.2,
        borderpad=1.2,
    )


def _heat_map(figure, axes, counts: np.ndarray) -> None:
    """Draw counts as colours; classes a client lacks stay white."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
    colours = LinearSegmentedColormap.from_list("counts", shades).with_extremes(bad="white")
    shown = np.ma.masked_equal(counts.T, 0)
    image = axes.imshow(shown, aspect="auto", interpolation="nearest", cmap=colours, vmin=0)
    figure.colorbar(image, ax=axes, label="Images", fraction=0.04, pad=0.02)
