"""Lines of Markdown tables."""

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    """Return a line of a table; a cell holds no bar of its own."""
    return f"| {' | '.join(cells)} |"
