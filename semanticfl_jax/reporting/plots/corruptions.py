"""A gallery of corrupted clients' images, as a PNG file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reporting.plots import drawing
from semanticfl_jax.reporting.plots.pictures import tile


@drawing.picture
def plot_gallery(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    note: str | None = None,
) -> None:
    """Draw one row a client: some of its images before corruption, and the same ones after it.

    Args:
      rows: a label, and images before and after, uint8 `[b, H, W, 3]` each, b at least 1.
      path: PNG file to write.
      note: what must be known with the pictures, written above them.

    Raises:
      SemanticFLError: if there are no rows.
    """
    if not rows:
        raise SemanticFLError("rows must be at least one corrupted client")
    columns = max(len(before) for _, before, _ in rows)
    figure = drawing.figure(2.4 + 1.3 * columns, 0.6 + 0.72 * len(rows))
    drawing.note(figure, note)
    axes = figure.subplots(len(rows), 2, squeeze=False)
    for pair, (label, *strips) in zip(axes, rows, strict=True):
        for ax, images in zip(pair, strips, strict=True):
            # Clients with fewer images leave white at the end of their row.
            strip = np.full((columns, *images.shape[1:]), 255, np.uint8)
            strip[: len(images)] = images
            ax.imshow(tile(strip[None]), interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        pair[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for ax, title in zip(axes[0], ("before", "after"), strict=True):
        ax.set_title(title, fontsize=9)
    drawing.save(figure, path)
