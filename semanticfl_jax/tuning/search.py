"""Which of many lowerings and chunks is the fastest, looking at few of them."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from semanticfl_jax.tuning.timing import Figure

#: Clients per chunk -> {clients side by side: steps with so many, for each step of a client}.
Load = Callable[[int], dict[int, float]]

#: Share of the time by which more clients side by side must be faster to be worth their memory.
GAIN = 0.05
# Clients side by side with which lowerings are compared first.
_MIDDLING = 8


def _alike(chunk: int) -> dict[int, float]:
    """Return the load of clients that all have as many steps."""
    return {chunk: 1 / chunk}


def chunks_up_to(largest: int) -> list[int]:
    """Return 1, 2, 4, ..., and `largest` itself."""
    return [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]


def search(
    look: Callable[[str, int], Figure],
    lowerings: Sequence[str],
    chunks: Sequence[int],
    load: Load = _alike,
) -> list[Figure]:
    """Look at the lowerings with a middling chunk, then at other chunks with the fastest.

    A single client is no batch, so that lowerings rank differently there: all are looked at with
    it, too.

    Args:
      look: (lowering, clients per chunk) -> what was found.
      lowerings: to choose from, the likeliest first.
      chunks: clients per chunk to choose from, rising.
      load: clients per chunk -> steps with each width (`chunk_load`); by default clients are alike.

    Returns:
      What was looked at, in that order.
    """
    seen: dict[tuple[str, int], Figure] = {}

    def seconds(lowering: str, chunk: int) -> float:
        if (lowering, chunk) not in seen:
            seen[lowering, chunk] = look(lowering, chunk)
        return expected(seen[lowering, chunk], list(seen.values()), load)

    def compare(chunk: int) -> tuple[float, str]:
        return min((seconds(lowering, chunk), lowering) for lowering in lowerings)

    middle = sum(chunk <= _MIDDLING for chunk in chunks) - 1
    middle = max(middle, 0)  # a single, large one that was given
    least, lowering = compare(chunks[middle])
    while middle and least == math.inf:  # nothing fits
        middle -= 1
        least, lowering = compare(chunks[middle])
    if least == math.inf:
        return list(seen.values())
    grown = False
    for chunk in chunks[middle + 1 :]:
        before, least = least, seconds(lowering, chunk)
        if least > (1 - GAIN) * before:
            break
        grown = True
    compare(chunks[0])
    if not grown:
        least = seconds(lowering, chunks[middle])
        for chunk in reversed(chunks[1:middle]):
            if seconds(lowering, chunk) > (1 + GAIN) * least:
                break
    return list(seen.values())


def best(figures: Sequence[Figure], load: Load = _alike) -> Figure | None:
    """Return the fewest clients side by side that are nearly as fast as the fastest, or None.

    `load` is as of `search`.
    """
    seconds = {figure: expected(figure, figures, load) for figure in figures}
    least = min(seconds.values(), default=math.inf)
    near = [f for f in figures if seconds[f] < math.inf and seconds[f] <= (1 + GAIN) * least]
    return min(near, key=lambda f: (f.clients_per_chunk, seconds[f]), default=None)


def expected(figure: Figure, figures: Sequence[Figure], load: Load = _alike) -> float:
    """Return the seconds of one client's step in a round; infinite if it was not measured.

    A chunk that has narrowed takes as long as one that wide from the start, between those of
    `figures` in proportion: our approximation.
    """
    if figure.seconds is None:
        return math.inf
    measured = {
        other.clients_per_chunk: other.clients_per_chunk * other.seconds
        for other in figures
        if other.conv == figure.conv and other.seconds is not None
    }
    widths = sorted(measured)
    seconds = [measured[width] for width in widths]
    return sum(
        steps * float(np.interp(width, [0, *widths], [0.0, *seconds]))
        for width, steps in load(figure.clients_per_chunk).items()
    )
