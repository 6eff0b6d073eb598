"""Several values in short: of seeds mean and deviation as text, of timings the range."""

import statistics
from collections.abc import Sequence


def mean_and_spread(values: Sequence[float], form: str, factor: float = 1.0, sign: str = "") -> str:
    """Return mean ± sample standard deviation as text; of one value the mean alone.

    Args:
      values: one at least.
      form: of both, as in ".2f".
      factor: that both are multiplied by: 100 writes fractions in per cent.
      sign: "+" writes that of a mean above 0, too.
    """
    mean = f"{factor * statistics.fmean(values):{sign}{form}}"
    return f"{mean} ± {factor * statistics.stdev(values):{form}}" if len(values) > 1 else mean


def some_of(count: int, of: int) -> str:
    """Return what stands behind a mean over some seeds only; nothing where it is over all."""
    return f" ({count} of {of})" if 0 < count < of else ""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and greatest of timings."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
