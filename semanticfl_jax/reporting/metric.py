"""The metric by which a task judges models: its name, its direction, and how it is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from semanticfl_jax.reporting.spread import mean_and_spread


@dataclasses.dataclass(frozen=True)
class Metric:
    """A task's headline.

    Attributes:
      name: field of the rows of a run's metrics; it begins with "test_".
      higher: whether more of it is better.
    """

    name: str = "test_accuracy"
    higher: bool = True

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Metric:
        """Return the metric that a run's summary names; accuracy where it names none."""
        if "metric" not in summary:
            return cls()
        return cls(summary["metric"], summary["higher_is_better"])

    @property
    def short(self) -> str:
        """The name without "test_", as the fields of a summary have it."""
        return self.name.removeprefix("test_")

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the accuracy, which is kept as a fraction and written in percent."""
        return self.name == "test_accuracy"

    @property
    def fields(self) -> tuple[str, str, str]:
        """A summary's fields: of the best round, the last, and the mean of the last 10."""
        return f"best_{self.short}", f"final_{self.short}", f"mean_last10_{self.short}"

    @property
    def factor(self) -> float:
        """What a value is multiplied by before it is written."""
        return 100.0 if self.is_accuracy else 1.0

    @property
    def unit(self) -> str:
        """What stands after a written value."""
        return " %" if self.is_accuracy else ""

    @property
    def column(self) -> str:
        """What the head of a table's column calls it."""
        return "%" if self.is_accuracy else self.short

    @property
    def title(self) -> str:
        """The title of a plot."""
        return _capital(self.short)

    @property
    def axis(self) -> str:
        """The label of a plot's axis."""
        return _capital(self.name) + (" (%)" if self.is_accuracy else "")

    @property
    def least(self) -> float:
        """The least written value that there can be, as far as that is known."""
        return 0.0 if self.is_accuracy else -math.inf

    @property
    def most(self) -> float:
        """The greatest written value that there can be, as far as that is known."""
        return self.factor if self.is_accuracy else math.inf

    def gain(self, value: float, reference: float) -> float:
        """Return how much better `value` is than `reference`: above 0 where it is better."""
        return value - reference if self.higher else reference - value

    def write(self, value: float, sign: str = "") -> str:
        """Return a value as text, without its unit."""
        return f"{self.factor * value:{sign}{self._form}}"

    def write_spread(self, values: Sequence[float], sign: str = "") -> str:
        """Return mean ± sample standard deviation; the mean alone of one, "-" of none."""
        if not values:
            return "-"
        return mean_and_spread(values, self._form, self.factor, sign)

    @property
    def _form(self) -> str:
        return ".2f" if self.is_accuracy else ".4g"


ACCURACY = Metric()


def _capital(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
