"""Pieces of Markdown: tables, values as they are typed, docstrings of commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; cells may hold Markdown of one line."""
    head = list(head)

    def line(cells: Iterable[str]) -> str:
        return (
            "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"
        )

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def code(value: Any) -> str:
    """Return a value as it is typed on the command line, in code type."""
    if value is None or value == ():
        return "`none`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`" + ",".join(map(str, value)) + "`"
    return f"`{value}`"


def as_markdown(text: str) -> list[str]:
    """Return a docstring's paragraphs; indented ones are code, and "  name   text" is a list."""
    parts = []
    for block in re.split(r"\n\n+", text.strip("\n")):
        if block.startswith("    "):
            parts.append("```sh\n" + inspect.cleandoc("\n" + block) + "\n```")
            continue
        lines: list[str] = []
        for line in block.splitlines():
            item = re.match(r"  (\S+) {2,}(.*)", line)
            if item:
                lines += ["", f"- `{item[1]}`: {escape(item[2])}"]
            elif line.startswith("  ") and lines:
                lines[-1] += " " + escape(line.strip())
            else:
                lines.append(escape(line))
        parts.append("\n".join(lines))
    return [part for part in parts if part]


def escape(text: str | None) -> str:
    """Return plain text such that Markdown leaves it as it is."""
    return re.sub(r"([\\*_<>`|{}\[\]$])", r"\\\1", text or "").replace(r"\|", "|")
