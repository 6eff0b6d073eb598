"""Lines of Markdown tables."""

from collections.abc import Iterable


def row(cells: Iterable[str]) -> str:
    r"""Return a line of a table; a bar in a cell becomes \|."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
