"""What all plots share: figures, labels, colours, and how they are written.

Figures are built as objects, without pyplot, so that plotting opens no window and needs no backend
but Agg, whatever MPLBACKEND says. `picture` gives a plot matplotlib's own settings, not the user's,
in which text is text: a class called "$^$" is no formula. Nothing global changes. Colours are Okabe
and Ito's, which stay apart for colour-blind readers; lines differ in dashes too.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.types import Say

P = ParamSpec("P")
R = TypeVar("R")
_LONGEST = 40

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")


def attempt(path: str | os.PathLike, draw: Callable[[], object], say: Say) -> None:
    """Draw; a failure is a line of warning, because what is drawn has been saved."""
    try:
        draw()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        say(f"warning: {os.fspath(path)} was not drawn ({type(error).__name__}: {reason})")


def picture(plot: Callable[P, R]) -> Callable[P, R]:
    """Return a function that plots as it would if the user had configured nothing."""

    @functools.wraps(plot)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _settings():
            return plot(*args, **kwargs)

    return drawn


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    _import_matplotlib()
    import matplotlib

    # The user's backend is theirs: rc_context would put it back by switching to it.
    own = {
        name: value
        for name, value in matplotlib.rcParamsDefault.items()
        if not name.startswith("backend")
    }
    ours = own | {"text.parse_math": False, "text.usetex": False}
    with matplotlib.rc_context(ours), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def _import_matplotlib() -> None:
    """Import matplotlib, although MPLBACKEND may name a backend that does not exist."""
    given = os.environ.pop("MPLBACKEND", None) if "matplotlib" not in sys.modules else None
    import matplotlib

    if given is not None:
        os.environ["MPLBACKEND"] = given
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = given  # as matplotlib does


def names(given: Sequence[object]) -> list[str]:
    """Return names as they can be drawn: in a font that is installed, else in Latin, else numbered.

    Call it before anything else of a picture, which may get a further font by it.
    """
    import matplotlib
    from matplotlib import font_manager

    texts = [_printable(str(name)) for name in given]
    wanted = {ord(c) for text in texts for c in text}
    family = list(matplotlib.rcParams["font.family"])
    missing = wanted - _glyphs(font_manager.findfont("DejaVu Sans"))
    if missing:
        for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name):
            if font.name.startswith("Last Resort"):  # matplotlib's own boxes
                continue
            found = missing & _glyphs(font.fname)
            if found:
                family.append(font.name)
                missing -= found
            if not missing:
                break
        matplotlib.rcParams["font.family"] = family
    return [_drawable(text, missing, number) for number, text in enumerate(texts)]


def _printable(text: str) -> str:
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= _LONGEST else f"{clean[: _LONGEST - 3]}..."


def _drawable(text: str, missing: set[int], number: int) -> str:
    if not any(ord(c) in missing for c in text):
        return text
    latin = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().strip()
    return latin if len(latin) > len(text) // 2 else f"class {number}"


@functools.cache
def _glyphs(path: str) -> frozenset[int]:
    """Return the characters that a font file has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except Exception:  # a font of the system that FreeType does not read
        return frozenset()


def figure(width: float, height: float):
    """Return a figure of `width` x `height` inches."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook shows, although pyplot does not know it."""

        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Shown(figsize=(width, height), dpi=150, layout="constrained")


def label(axes, title: str, horizontal: str, vertical: str) -> None:
    """Set title and axis labels, a light grid, and no frame above and at the right."""
    axes.set_title(title, fontsize="medium", loc="left")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


#: Of a legend in a picture: on white, so that no line of the grid strikes its text through.
LEGEND = {"facecolor": "white", "edgecolor": "none", "framealpha": 0.9}


def wrap(text: str, letters: int) -> str:
    """Return text in lines of so many letters; a longer word is broken behind "_" or "=", too."""
    pieces: list[str] = []
    for word in text.split():
        parts = re.findall(r"[^_=]+[_=]*|[_=]+", word) if len(word) > letters else [word]
        parts = [part[i : i + letters] for part in parts for i in range(0, len(part), letters)]
        pieces += [f" {parts[0]}", *parts[1:]]
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1] + piece) <= letters:
            lines[-1] += piece
        else:
            lines.append(piece.removeprefix(" "))
    return "\n".join(lines)


def headline(title: str, about: str | None) -> str:
    """Return a panel's title, in lines, with what the picture is about if that is known."""
    return title if about is None else textwrap.fill(f"{title}: {about}", 52)


def heading(figure, text: str, width: float, points: float) -> None:
    """Write a title over a picture of so many inches, in as many lines as it takes."""
    letters = int(width * 72 / (0.55 * points))
    figure.suptitle(wrap(text, letters), x=0.01, ha="left", fontsize="medium")


def marks(values: np.ndarray) -> dict[str, object]:
    """Return the style that marks points between gaps: a line of one point is invisible."""
    there = np.concatenate([[False], np.isfinite(values), [False]])
    lone = np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:])
    return {"marker": "o", "markersize": 4, "markevery": lone.tolist()} if len(lone) else {}


def note(figure, text: str | None) -> None:
    """Write what must be known with the figure, above it."""
    if text:
        figure.suptitle(text, fontsize=8, color=COLOURS[1], x=0.01, ha="left")


def save(figure, path: str | os.PathLike) -> None:
    """Write a file of the format that its ending names (PNG, PDF, SVG), whole or not at all."""
    kind = Path(path).suffix.removeprefix(".")
    # Without the date the same picture is the same file.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    files.write(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))
