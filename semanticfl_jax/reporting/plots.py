"""Plots of runs and partitions, as PNG files.

Figures are built as objects, without pyplot, so that plotting opens no window and changes no
global state. Colours are Okabe and Ito's, which stay apart for colour-blind readers; lines differ
in dashes too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax import files

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")

#: Above these a bubble chart is no longer readable, and a heat map takes its place.
_MAX_BUBBLE_CLIENTS = 40
_MAX_BUBBLE_CLASSES = 30


def plot_curves(
    rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, note: str | None = None
) -> None:
    """Test accuracy, and training and test loss, of one run over its rounds.

    Args:
      rows: rounds as `metrics.read_metrics` returns them; missing values leave a gap.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
    """
    figure = _figure(9.6, 3.8)
    _note(figure, note)
    left, right = figure.subplots(1, 2)
    rounds, accuracy = _series(rows, "test_accuracy")
    marker = "o" if len(rounds) <= 30 else None
    if len(rounds):
        left.plot(rounds, 100 * accuracy, color=_COLOURS[0], marker=marker, markersize=3)
    if np.isfinite(accuracy).any():
        best = int(np.nanargmax(accuracy))
        left.plot(rounds[best], 100 * accuracy[best], "*", color=_COLOURS[1], markersize=11)
        label = f"best {100 * accuracy[best]:.2f} % (round {rounds[best]})"
        left.text(0.98, 0.04, label, transform=left.transAxes, ha="right", color=_COLOURS[1])
    _label(left, "Accuracy", "Round", "Test accuracy (%)")
    for index, (name, title) in enumerate((("train_loss", "train"), ("test_loss", "test"))):
        rounds, loss = _series(rows, name)
        if len(rounds):
            marker = "o" if len(rounds) <= 30 else None
            style = {"color": _COLOURS[index], "linestyle": _DASHES[index], "marker": marker}
            right.plot(rounds, loss, label=title, markersize=3, **style)
    _label(right, "Loss", "Round", "Loss (nats)")
    if right.lines:
        right.legend(frameon=False)
    for axes in (left, right):
        _round_axis(axes)
    _save(figure, path)


def plot_feature_maps(
    maps: Mapping[str, Mapping[str, float]], path: str | os.PathLike, note: str | None = None
) -> None:
    """Which layer carries the class meaning: separability and weight of each feature map.

    Args:
      maps: name to its `separability`, `weight` and `dimensions`, in the network's order.
      path: PNG file to write.
      note: what must be known with the figures, written above them.
    """
    figure = _figure(8.0, 1.6 + 0.42 * len(maps))
    _note(figure, note)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [f"{name} ({int(m['dimensions'])} d)" for name, m in maps.items()]
    titles = {
        "separability": ("Class separability", "between / within scatter"),
        "weight": ("Weight in the anchors", "share"),
    }
    for axes, (field, (title, label)) in zip((left, right), titles.items(), strict=True):
        values = [m[field] if m[field] is not None else np.nan for m in maps.values()]
        bars = axes.barh(names, values, color=_COLOURS[0], height=0.65)
        axes.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=8)
        axes.margins(x=0.18)
        _label(axes, title, label, "")
    left.invert_yaxis()
    _save(figure, path)


def plot_partition(
    label_counts: np.ndarray, class_names: Sequence[str], path: str | os.PathLike
) -> None:
    """Which client holds how many images of which class.

    A few clients and classes are shown as bubbles whose area is the count, more as a heat map. Many
    clients are sorted by their most frequent class, so that skew shows as a diagonal.

    Args:
      label_counts: `[N, K]` whole numbers, images of class k at client n.
      class_names: K names.
      path: PNG file to write.

    Raises:
      ValueError: if the shapes disagree.
    """
    counts = np.asarray(label_counts)
    if counts.ndim != 2 or counts.shape[1] != len(class_names) or not counts.size:
        raise ValueError(
            f"label_counts must be [clients, {len(class_names)} classes], got {counts.shape}"
        )
    clients, classes = counts.shape
    bubbles = clients <= _MAX_BUBBLE_CLIENTS and classes <= _MAX_BUBBLE_CLASSES
    width = float(np.clip(3.5 + 0.32 * clients, 6.5, 13.0))
    figure = _figure(width, float(np.clip(2.6 + 0.3 * classes, 4.6, 9.5)))
    bars, axes = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 4)})
    few = clients <= _MAX_BUBBLE_CLIENTS
    if not few:
        largest = counts.max(axis=1)
        most_frequent = np.where(largest > 0, counts.argmax(axis=1), classes)
        counts = counts[np.lexsort((-largest, most_frequent))]
    (_bubbles if bubbles else _heat_map)(figure, axes, counts)
    sizes = counts.sum(axis=1)
    bars.bar(np.arange(clients), sizes, color=_COLOURS[0], width=0.8 if few else 1.0)
    title = f"{sizes.sum():,} images, {clients:,} clients"
    title += f" ({sizes.min():,} to {sizes.max():,} images each)"
    _label(bars, title, "", "Images")
    margin = 0.7 if bubbles else 0.5
    axes.set_xlim(-margin, clients - 1 + margin)
    axes.set_ylim(classes - 1 + margin, -margin)
    axes.set_xlabel("Client" if few else "Clients, sorted by most frequent class")
    axes.set_ylabel("Class")
    if few:
        axes.set_xticks(range(clients))
    step = max(1, -(-classes // 30))
    axes.set_yticks(range(0, classes, step), [str(name) for name in class_names[::step]])
    axes.tick_params(axis="both", labelsize=8)
    _save(figure, path)


def plot_comparison(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], path: str | os.PathLike
) -> None:
    """Mean test accuracy of each method, with a band of one sample standard deviation over seeds.

    Args:
      runs: for each method's label, the rows of each of its seeds. Only rounds that every seed
        evaluated are drawn.
      path: PNG file to write.
    """
    figure = _figure(7.2, 4.4)
    axes = figure.subplots()
    for index, (label, seeds) in enumerate(runs.items()):
        curves = [dict(zip(*_series(rows, "test_accuracy"), strict=True)) for rows in seeds]
        rounds = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = 100 * np.array([[curve[r] for r in rounds] for curve in curves])
        mean = values.mean(axis=0)
        name = f"{label} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        colour = _COLOURS[index % len(_COLOURS)]
        dash = _DASHES[index % len(_DASHES)]
        axes.plot(rounds, mean, color=colour, linestyle=dash, linewidth=1.8, label=name)
        if len(seeds) > 1:
            spread = values.std(axis=0, ddof=1)
            axes.fill_between(
                rounds, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
    several = any(len(seeds) > 1 for seeds in runs.values())
    title = "Mean over seeds ± standard deviation" if several else "Test accuracy"
    _label(axes, title, "Round", "Test accuracy (%)")
    _round_axis(axes)
    if axes.lines:
        axes.legend(frameon=False)
    _save(figure, path)


def _bubbles(figure, axes, counts: np.ndarray) -> None:
    """Circles whose area is the count, with a legend of three sizes."""
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
        color=_COLOURS[0],
        alpha=0.75,
        linewidths=0,
    )
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    shown = sorted({max(round(largest * share), 1) for share in (0.1, 0.5, 1.0)})
    handles = [
        axes.scatter([], [], s=scale * size, color=_COLOURS[0], alpha=0.75, linewidths=0)
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
    """Counts as colours; classes a client lacks stay white."""
    from matplotlib.colors import LinearSegmentedColormap

    shades = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
    colours = LinearSegmentedColormap.from_list("counts", shades).with_extremes(bad="white")
    shown = np.ma.masked_equal(counts.T, 0)
    image = axes.imshow(shown, aspect="auto", interpolation="nearest", cmap=colours, vmin=0)
    figure.colorbar(image, ax=axes, label="Images", fraction=0.04, pad=0.02)


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rounds `[M]` that have the field `name`, and its values `[M]`, NaN where it is null."""
    present = [row for row in rows if name in row]
    values = [np.nan if row[name] is None else row[name] for row in present]
    return np.array([row["round"] for row in present], int), np.array(values, float)


def _figure(width: float, height: float):
    """A figure of `width` x `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _label(axes, title: str, horizontal: str, vertical: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


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


def _note(figure, note: str | None) -> None:
    if note:
        figure.suptitle(note, fontsize=8, color=_COLOURS[1], x=0.01, ha="left")


def _save(figure, path: str | os.PathLike) -> None:
    files.write(path, lambda file: figure.savefig(file, format="png"))
