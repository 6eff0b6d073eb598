"""Sphinx: a notebook's page shows the outputs of its last execution.

`make notebooks` executes docs/notebooks/*.ipynb, which are kept without outputs, into
docs/_build/notebooks. Where such a copy is older than its notebook, or missing, the page shows the
code alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def executed(app: Any, page: str) -> Path | None:
    """Return the executed copy of a page's notebook, if it is there and not older."""
    source = Path(app.srcdir) / f"{page}.ipynb"
    copy = Path(app.srcdir) / "_build" / "notebooks" / source.name
    if not (source.is_file() and copy.is_file()):
        return None
    return copy if copy.stat().st_mtime >= source.stat().st_mtime else None


def show_outputs(app: Any, page: str, source: list[str]) -> None:
    """Take the executed copy in place of the notebook."""
    copy = executed(app, page)
    if copy is not None:
        source[0] = copy.read_text(encoding="utf-8")


def outdated(app: Any, env: Any, *_: Any) -> list[str]:
    """Return the notebooks' pages: their copies may be newer than the page."""
    del app
    return sorted(page for page in env.found_docs if page.startswith("notebooks/"))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", show_outputs)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True}
