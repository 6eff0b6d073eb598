"""Tables that can be reproduced: what they are, at which scales, and what is published."""

from __future__ import annotations

from docs._ext.markdown import code, escape, table
from semanticfl_jax.reproduction.tables import Tables


def evaluations() -> str:
    """Return the tables with their columns and the number of their methods."""
    tables = Tables()
    rows = []
    for name, about in tables.entries("tables").items():
        methods = about["methods"]
        methods = tables.entries("sets")[methods] if isinstance(methods, str) else methods
        columns = ", ".join(map(code, about["columns"]))
        rows.append((code(name), escape(about["about"]), columns, str(len(methods))))
    return table(("table", "what", "columns", "methods"), rows)


def scales() -> str:
    """Return the scales in words."""
    rows = [
        (code(name), escape(each["about"])) for name, each in Tables().entries("scales").items()
    ]
    return table(("`--scale`", "protocol"), rows)


def methods() -> str:
    """Return the methods as they are written in the file."""
    rows = [(code(name), code(text)) for name, text in Tables().entries("methods").items()]
    return table(("method", "settings"), rows)


def published() -> str:
    """Return the published numbers that are known."""
    rows = []
    for name, about in Tables().entries("tables").items():
        for method, cells in about.get("published", {}).items():
            for column, value in cells.items():
                source = escape(about["sources"])
                rows.append((code(name), code(method), code(column), f"{value:.2f}", source))
    return table(("table", "method", "column", "published %", "source"), rows)
