"""The page of a comparison: `write_page` makes one HTML file that needs no network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from semanticfl_jax import __version__
from semanticfl_jax.files import write_text
from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.html import background, personal, quality, served
from semanticfl_jax.reporting.html.elements import escape, paragraph, plain


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      name: by which it is linked.
      heading: above it.
      write: returns its HTML; "" where the runs know nothing of it, which leaves it out.
    """

    name: str
    heading: str
    write: Callable[[Comparison], str]


SECTIONS = (
    Section("results", "Results", quality.results),
    Section("curves", "Curves", quality.curves),
    Section("classes", "Classes", served.classes),
    Section("clients", "Clients", served.clients),
    Section("fairness", "Fairness", served.fairness),
    Section("personal", "Personal models", personal.personal),
    Section("calibration", "Calibration", quality.calibration),
    Section("traffic", "Traffic", background.traffic),
    Section("time", "Time", background.time),
    Section("privacy", "Privacy", background.privacy),
    Section("partition", "Partition", background.partition),
    Section("anchors", "Anchors", background.anchors),
    Section("configuration", "Configuration", background.configuration),
    Section("runs", "Runs", background.runs),
)


def write_page(directories: Sequence[str | os.PathLike], path: str | os.PathLike) -> Path:
    """Write the comparison of finished runs as a page, and return its path.

    Args:
      directories: finished runs.
      path: HTML file to write; style, script and pictures are inside it.

    Raises:
      ReportError: as `Comparison.load`.
    """
    write_text(path, page(Comparison.load(directories)))
    return Path(path)


def page(comparison: Comparison) -> str:
    """Return the page as text."""
    written = [(section, section.write(comparison)) for section in SECTIONS]
    shown = [(section, content) for section, content in written if content]
    links = "".join(f'<a href="#{s.name}">{escape(s.heading)}</a>' for s, _ in shown)
    body = "".join(
        f'<section id="{s.name}"><h2>{escape(s.heading)}</h2>{content}</section>'
        for s, content in shown
    )
    return Template(_asset("page.html")).substitute(
        title=escape(_title(comparison)),
        lead=_lead(comparison),
        style=_asset("page.css"),
        script=_asset("page.js"),
        links=links,
        body=body,
        version=escape(__version__),
    )


def _title(comparison: Comparison) -> str:
    count = len(comparison.methods)
    what = f"{count} methods" if count > 1 else comparison.methods[0].label
    return f"{what} on {comparison.title()}"


def _lead(comparison: Comparison) -> str:
    setting = " · ".join(f"{name} {plain(value)}" for name, value in comparison.setting().items())
    count = len(comparison.runs)
    lead = paragraph(f"{count} run{'s' * (count > 1)} · {setting}", "lead")
    open_methods = [
        m.label for m in comparison.methods if not m.runs[0].summary.get("private", True)
    ]
    if open_methods:
        lead += paragraph(f"Not private: {', '.join(open_methods)}; see Privacy.", "warning")
    for text in caveats.warnings(comparison):
        lead += paragraph(f"{text[:1].upper()}{text[1:]}.", "warning")
    return lead


def _asset(name: str) -> str:
    return (files("semanticfl_jax.reporting.html") / name).read_text(encoding="utf-8")
