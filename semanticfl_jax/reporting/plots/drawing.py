"""What all plots share: figures, labels, colours, and how they are written.

Figures are built as objects, without pyplot, so that plotting opens no window and changes no
global state. Colours are Okabe and Ito's, which stay apart for colour-blind readers; lines differ
in dashes too.
"""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from semanticfl_jax import files

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")


def figure(width: float, height: float):
    """A figure of `width` x `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def label(axes, title: str, horizontal: str, vertical: str) -> None:
    """Title and axis labels, a light grid, and no frame above and at the right."""
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


#: Of a legend in a picture: on white, so that no line of the grid strikes its text through.
LEGEND = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}


def headline(title: str, about: str | None) -> str:
    """Return a panel's title, in lines, with what the picture is about if that is known."""
    return title if about is None else textwrap.fill(f"{title}: {about}", 52)


def note(figure, text: str | None) -> None:
    """What must be known with the figure, above it."""
    if text:
        figure.suptitle(text, fontsize=8, color=COLOURS[1], x=0.01, ha="left")


def save(figure, path: str | os.PathLike) -> None:
    """Writes a file of the format that its ending names (PNG, PDF, SVG), whole or not at all."""
    kind = Path(path).suffix.removeprefix(".")
    # Without the date the same picture is the same file.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    files.write(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))
