"""Types that the whole package shares."""

from collections.abc import Callable
from typing import Any

#: Nested containers of arrays, as JAX's tree functions take them.
PyTree = Any

#: Takes a line for the user.
Say = Callable[[str], None]


def silent(line: str) -> None:
    """Drop a line: for those who want to hear nothing."""
    del line
