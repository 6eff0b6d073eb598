"""Pieces of a page: tables whose columns sort, tables of colours, pairs of names and values."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.reporting.spread import mean_and_spread, some_of


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: what is read, not escaped.
      value: what the column is sorted by; None stands last. By default the text.
      shade: from 0 to 1, how strongly the cell is coloured; None: not at all.
      strong: whether the text is emphasised.
    """

    text: str
    value: float | str | None = None
    shade: float | None = None
    strong: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table: its head, and what that means, which is shown on request."""

    title: str
    hint: str = ""


def escape(text: object) -> str:
    """Return text as HTML, quotes included."""
    return html.escape(str(text), quote=True)


def number(value: float | None, form: str = ".2f", factor: float = 1.0, unit: str = "") -> Cell:
    """Return a cell of a number; a dash of None and NaN."""
    if value is None or not math.isfinite(value):
        return Cell("–")
    return Cell(f"{factor * value:{form}}{unit}", value)


def spread(
    values: Sequence[float], form: str = ".2f", factor: float = 1.0, of: int | None = None
) -> Cell:
    """Return a cell of mean ± sample standard deviation; of the mean alone of one value.

    Args:
      values: those that are None or not finite do not count.
      form: of both.
      factor: that both are multiplied by.
      of: how many seeds there are, which is told where some have no value; None tells nothing.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return Cell("–")
    text = mean_and_spread(known, form, factor) + some_of(len(known), of or 0)
    return Cell(text, statistics.fmean(known))


def table(
    columns: Sequence[Column | str],
    rows: Iterable[Sequence[Cell | str]],
    *,
    sortable: bool = True,
    kind: str = "",
) -> str:
    """Return a table that scrolls sideways where it is too wide, its first column in place."""
    heads = [each if isinstance(each, Column) else Column(each) for each in columns]
    button = '<button type="button">{}</button>' if sortable else "{}"
    head = "".join(
        f'<th scope="col"{_title(each.hint)}>{button.format(escape(each.title))}</th>'
        for each in heads
    )
    body = "".join(f"<tr>{''.join(map(_cell, row, range(len(heads))))}</tr>" for row in rows)
    name = " ".join(filter(None, ("sortable" if sortable else "", kind)))
    return (
        f'<div class="scroll" tabindex="0"><table class="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell | str, place: int) -> str:
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    text = escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.strong else text
    key = "" if cell.value is None else f' data-v="{escape(cell.value)}"'
    if place == 0:
        return f'<th scope="row"{key}>{text}</th>'
    shade = "" if cell.shade is None else f' class="shade" style="--s:{cell.shade:.3f}"'
    return f"<td{key}{shade}>{text}</td>"


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and values, one under the other; groups of them by dotted names."""
    lines = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(plain(value))}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="pairs">{lines}</dl>'


def plain(value: Any) -> str:
    """Return a value of a configuration or summary as a reader writes it."""
    if value is None or value == [] or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)


def details(summary: str, content: str, shown: bool = False) -> str:
    """Return content that is folded until it is asked for."""
    state = " open" if shown else ""
    return f"<details{state}><summary>{escape(summary)}</summary>{content}</details>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def picture(path: Path, caption: str) -> str:
    """Return a PNG file as a part of the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _title(hint: str) -> str:
    return f' title="{escape(hint)}"' if hint else ""
