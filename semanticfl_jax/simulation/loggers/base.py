"""What all loggers share: figures as flat numbers, and that a tracker's failure ends no run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import write_json
from semanticfl_jax.simulation.callbacks import Callback, Step
from semanticfl_jax.simulation.workdir import read_json
from semanticfl_jax.types import Say

if TYPE_CHECKING:
    from semanticfl_jax.simulation.experiment import Simulation


class Logger(Callback):
    """Base of loggers: a failure during the run is a warning, and the run goes on without it.

    The tracker gets the rows of metrics.jsonl as they are written, and the summary's numbers when
    the run is closed, after summary.json.

    Args:
      name: of the tracker, for the warning.
    """

    def __init__(self, name: str):
        self._name = name
        self._failed = False
        self._started = False
        self._say: Say = print
        self._classes: Sequence[str] = ()
        self._summary: dict[str, float] | None = None

    def start(self, simulation: Simulation) -> None:
        """Open the tracker's run; `simulation.round` rounds were logged before."""
        raise NotImplementedError

    def log(self, round: int, values: dict[str, float]) -> None:
        """Send the figures of a round."""
        raise NotImplementedError

    def finish(self, summary: dict[str, float] | None) -> None:
        """Close the tracker's run, with the summary's numbers; None if the run is not finished."""
        raise NotImplementedError

    def on_start(self, simulation: Simulation) -> None:
        """Open the tracker's run; raise `SemanticFLError` if it cannot be, before training."""
        self._say = simulation.say
        self._classes = simulation.federation.dataset.class_names
        try:
            self.start(simulation)
        except Exception as error:
            raise SemanticFLError(
                f"the logger {self._name} cannot start ({error!r}); mend that, or leave it out of "
                "runtime.loggers"
            ) from error
        self._started = True

    def on_round(self, simulation: Simulation, step: Step) -> None:
        """Send the row."""
        del simulation
        self._try(lambda: self.log(step.round, numbers(step.metrics, self._classes)))

    def on_end(self, simulation: Simulation) -> None:
        """Keep the summary's numbers, which are sent when the run is closed."""
        self._summary = numbers(simulation.summary(), self._classes)

    def close(self) -> None:
        """Close the tracker's run."""
        if self._started:
            self._started = False
            self._try(lambda: self.finish(self._summary))

    def _try(self, act: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # hours of training must not end with a tracker's server
            self._failed = True
            self._say(f"warning: {self._name} gets no more figures of this run ({error!r})")


def numbers(row: Mapping[str, Any], classes: Sequence[str] = ()) -> dict[str, float]:
    """Return the finite numbers of a row or summary, flat: `class_accuracy/cat`, `partition/gini`.

    Args:
      row: nested; `round` and what is not a number are left out, and so are lists, but for one
        number a class under a name that begins with "class_": clients may be as many as classes.
      classes: names of the K classes.
    """
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": v for inner, v in numbers(value, classes).items()}
        elif isinstance(value, list) and name.startswith("class_") and len(value) == len(classes):
            found |= numbers({f"{name}/{c}": v for c, v in zip(classes, value, strict=True)})
        elif _is_number(value) and name != "round":
            found[name] = value
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def kept_id(workdir: Path | None, name: str) -> str | None:
    """Return the tracker's number of the run, if the run's directory has one from before."""
    there = None if workdir is None else read_json(workdir / f"{name}.json")
    return None if there is None else there.get("id")


def keep_id(workdir: Path | None, name: str, number: str) -> None:
    """Keep the tracker's number of the run, so that a run that is resumed goes on in it."""
    if workdir is not None:
        write_json(workdir / f"{name}.json", {"id": number})
