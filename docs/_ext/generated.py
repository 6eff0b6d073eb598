"""Sphinx: a line `% generated: NAME` of a page becomes the text that `tables.py` makes."""

from __future__ import annotations

import re
from typing import Any

from docs._ext.tables import GENERATED

# Headings of Google's style.
_SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples):$")
# The "_" at a word's end, outside of `code`.
_TRAILING = re.compile(r"(?<=\w)_(?![\w`])(?=[^`]*(?:`[^`]*`[^`]*)*$)")
_LINE = re.compile(r"^% generated: (\w+)$", re.MULTILINE)


def fill_in(app: Any, page: str, source: list[str]) -> None:
    """Put the generated texts into a page's source."""
    del app, page
    source[0] = _LINE.sub(lambda found: GENERATED[found[1]](), source[0])


def as_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn a docstring into reStructuredText before napoleon reads its sections.

    Docstrings are written to be read as they are: an indented paragraph is code or an equation, and
    a name may end with "_". reStructuredText wants the first announced and the second escaped.
    """
    del app, name, thing, options
    # napoleon takes "This: that" in the first line of a property for a type and a description.
    made: list[str] = [""] if what in ("property", "attribute") else []
    in_code, in_section = False, False
    for number, line in enumerate(lines):
        blank = not line.strip()
        in_section = in_section or bool(_SECTION.match(line))
        opens = number > 0 and not lines[number - 1].strip() and line.startswith("    ")
        if opens and not in_code and not in_section and not line.lstrip().startswith(">>>"):
            made += ["::", ""]
            in_code = True
        in_code = in_code and (blank or line.startswith("    "))
        made.append(line if in_code else _TRAILING.sub(r"\\_", line))
    lines[:] = made


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    # Before napoleon, whose priority is the default, 500.
    app.connect("autodoc-process-docstring", as_rst, priority=400)
    app.connect("source-read", fill_in)
    # What is generated depends on the whole package, not on the page: it is read anew every time.
    app.connect("env-get-outdated", lambda app, env, *_: sorted(generated_pages(app, env)))
    return {"parallel_read_safe": True}


def generated_pages(app: Any, env: Any) -> set[str]:
    """Return the pages with generated text."""
    del app
    return {
        page
        for page in env.found_docs
        if page.startswith("reference/") and _LINE.search(env.doc2path(page).read_text())
    }
