"""Which of many lowerings and chunks is the fastest, looking at few of them."""

from collections.abc import Callable, Sequence

from semanticfl_jax.simulation.chunk_timing import Figure

#: Share of the time by which more clients side by side must be faster to be worth their memory.
GAIN = 0.05
# Clients side by side with which lowerings are compared first.
_MIDDLING = 8


def chunks_up_to(largest: int) -> list[int]:
    """1, 2, 4, ..., and `largest` itself."""
    return [*(2**power for power in range(largest.bit_length()) if 2**power < largest), largest]


def search(
    look: Callable[[str, int], Figure], lowerings: Sequence[str], chunks: Sequence[int]
) -> list[Figure]:
    """Looks at the lowerings with a middling chunk, then at other chunks with the fastest.

    A single client is no batch, so that lowerings rank differently there: all are looked at with
    it, too.

    Args:
      look: (lowering, clients per chunk) -> what was found.
      lowerings: to choose from, the likeliest first.
      chunks: clients per chunk to choose from, rising.

    Returns:
      What was looked at, in that order.
    """
    seen: dict[tuple[str, int], Figure] = {}

    def seconds(lowering: str, chunk: int) -> float:
        if (lowering, chunk) not in seen:
            seen[lowering, chunk] = look(lowering, chunk)
        found = seen[lowering, chunk].seconds
        return float("inf") if found is None else found

    def compare(chunk: int) -> tuple[float, str]:
        return min((seconds(lowering, chunk), lowering) for lowering in lowerings)

    middle = sum(chunk <= _MIDDLING for chunk in chunks) - 1
    middle = max(middle, 0)  # a single, large one that was given
    least, lowering = compare(chunks[middle])
    while middle and least == float("inf"):  # nothing fits
        middle -= 1
        least, lowering = compare(chunks[middle])
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


def best(figures: Sequence[Figure]) -> Figure | None:
    """The fewest clients side by side that are nearly as fast as the fastest; None of nothing."""
    measured = [figure for figure in figures if figure.seconds is not None]
    least = min((figure.seconds for figure in measured), default=0.0)
    near = [figure for figure in measured if figure.seconds <= (1 + GAIN) * least]
    return min(near, key=lambda f: (f.clients_per_chunk, f.seconds), default=None)
