"""Curves as SVG, drawn here: they print, they need no script, and a script may read them.

Every curve is a group `g.series` with its number `data-i`, by which the page's script dims and
hides it, and its points `data-p` in data coordinates, which the script shows under the pointer.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import numpy as np

from semanticfl_jax.reporting.html.elements import escape

#: Colours and dashes of the page's style sheet.
COLOURS, DASHES = 7, 4

#: Size of the picture, and of the room for the axes' numbers and names.
_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 44

#: Points drawn of a curve; of longer ones, every second, third, ... point is.
_MAX_POINTS = 500


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
      index: its number in the page, which decides colour and dashes.
      label: its name.
      x, y: float64 [M]; NaN leaves a gap.
      spread: float64 [M], half the height of a band; None for no band.
    """

    index: int
    label: str
    x: np.ndarray
    y: np.ndarray
    spread: np.ndarray | None = None


def chart(
    title: str,
    horizontal: str,
    vertical: str,
    lines: Sequence[Line],
    most: float = math.inf,
) -> str:
    """Return a figure with curves and bands; empty text if there is nothing to draw.

    Args:
      title: above it.
      horizontal: name of the axis.
      vertical: name of the axis.
      lines: to draw.
      most: the greatest value that there can be, above which no band reaches.
    """
    lines = [_thin(line) for line in lines if np.isfinite(line.y).any()]
    if not lines:
        return ""
    x_low, x_high = _range([line.x for line in lines])
    bands = [line.spread if line.spread is not None else 0.0 for line in lines]
    heights = [line.y + s * b for line, b in zip(lines, bands, strict=True) for s in (-1, 1)]
    y_low, y_high = _range(heights, margin=0.04)
    if min(float(np.nanmin(line.y)) for line in lines) >= 0:
        # A figure that is never negative has no axis below 0, though a band may reach there.
        y_low = max(0.0, y_low)
    y_high = min(most, y_high)
    plane = _Plane(x_low, x_high, y_low, y_high)
    axes = json.dumps(
        [x_low, x_high, y_low, y_high, _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP]
    )
    # There is no round 1.5.
    whole = all(bool(np.all(line.x == np.round(line.x))) for line in lines)
    content = [_axes(plane, horizontal, vertical, whole), *(_series(plane, line) for line in lines)]
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'data-axes="{escape(axes)}" data-x="{escape(horizontal)}">{"".join(content)}</svg>'
        "</figure>"
    )


def legend(labels: Sequence[str]) -> str:
    """Return buttons that name the curves of all charts, and show or hide them."""
    buttons = "".join(
        f'<button type="button" class="{_style(i)}" data-i="{i}" aria-pressed="true">'
        f'<svg viewBox="0 0 28 8" aria-hidden="true"><path class="line" d="M0 4H28"/></svg>'
        f"{escape(label)}</button>"
        for i, label in enumerate(labels)
    )
    return f'<div class="legend" role="group" aria-label="Methods">{buttons}</div>'


@dataclasses.dataclass(frozen=True)
class _Plane:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value):
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value):
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def ticks(low: float, high: float, count: int = 6, whole: bool = False) -> list[float]:
    """Return about `count` round numbers from `low` to `high`: steps of 1, 2 or 5 times 10^n.

    With `whole`, they are whole numbers.
    """
    rough = max((high - low) / count, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _range(values: Sequence[np.ndarray], margin: float = 0.0) -> tuple[float, float]:
    """Return least and greatest finite value, apart even where they are one."""
    known = np.concatenate([np.ravel(each) for each in values])
    known = known[np.isfinite(known)]
    low, high = float(known.min()), float(known.max())
    if low == high:
        half = 0.1 * abs(low) or 0.5
        low, high = low - half, high + half
    room = margin * (high - low)
    return low - room, high + room


def _thin(line: Line) -> Line:
    step = -(-len(line.x) // _MAX_POINTS)
    if step == 1:
        return line
    kept = np.unique(np.append(np.arange(0, len(line.x), step), len(line.x) - 1))
    spread = None if line.spread is None else line.spread[kept]
    return dataclasses.replace(line, x=line.x[kept], y=line.y[kept], spread=spread)


def _axes(plane: _Plane, horizontal: str, vertical: str, whole: bool) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in ticks(plane.y_low, plane.y_high):
        y = plane.y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4.5:.1f}" class="end">{value:g}</text>')
    for value in ticks(plane.x_low, plane.x_high, whole=whole):
        x = plane.x(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" class="middle">{value:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 7}" class="middle">{escape(horizontal)}</text>')
    height = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(14 {height}) rotate(-90)" class="middle">'
        f"{escape(vertical)}</text>"
    )
    return "".join(parts)


def _series(plane: _Plane, line: Line) -> str:
    known = np.isfinite(line.y)
    band = ""
    if line.spread is not None and (known & (line.spread > 0)).any():
        x, y, half = (values[known] for values in (line.x, line.y, line.spread))
        top = np.minimum(y + half, plane.y_high)
        upper = [f"{plane.x(a):.1f} {plane.y(b):.1f}" for a, b in zip(x, top, strict=True)]
        least = np.maximum(y - half, plane.y_low)
        lower = [f"{plane.x(a):.1f} {plane.y(b):.1f}" for a, b in zip(x, least, strict=True)]
        band = f'<path class="band" d="M{"L".join([*upper, *lower[::-1]])}Z"/>'
    drawn, pen = [], "M"
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(y):
            drawn.append(f"{pen}{plane.x(x):.1f} {plane.y(y):.1f}")
        pen = "L" if math.isfinite(y) else "M"
    points = [
        [float(f"{x:.6g}"), float(f"{y:.5g}")]
        for x, y in zip(line.x[known], line.y[known], strict=True)
    ]
    # A point between gaps has no line.
    edged = np.concatenate([[False], known, [False]])
    lone = "".join(
        f'<circle class="dot" cx="{plane.x(line.x[i]):.1f}" cy="{plane.y(line.y[i]):.1f}" r="4"/>'
        for i in np.flatnonzero(known & ~edged[:-2] & ~edged[2:])
    )
    return (
        f'<g class="series {_style(line.index)}" data-i="{line.index}" '
        f'data-label="{escape(line.label)}" data-p="{escape(json.dumps(points))}">'
        f"<title>{escape(line.label)}</title>"
        f'{band}<path class="line" d="{"".join(drawn)}"/>{lone}</g>'
    )


def _style(index: int) -> str:
    return f"c{index % COLOURS} d{index % DASHES}"
