"""Numbers that are not finite: in which round, whose, and what becomes of the run.

Divergence is found inside the compiled round (`federated.measured`) and in evaluations; a row of
such a round says so, and so does the summary. JSON has no NaN: the rows' numbers alone would read
as missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.errors import DivergedError
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.types import Say

#: Clients that a row or a message names; it counts the others.
_NAMED = 20

#: What a row may have besides (`Divergence.columns`).
COLUMNS = ("diverged", "diverged_clients", "diverged_count")


class Divergence:
    """Watches the rounds of a run.

    Args:
      config: of the run.
      headline: the figure that says how well the model does.
    """

    def __init__(self, config: ExperimentConfig, headline: str):
        self._skips = config.on_divergence == "skip_client"
        self._stops = config.on_divergence == "stop"
        self._headline = headline
        self._told: set[str] = set()

    def columns(
        self,
        result: RoundMetrics,
        figures: Mapping[str, Any] | None,
        of_clients: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return what the row of a round has besides; {} where everything is finite.

        Args:
          result: what the round measured, on the host.
          figures: of its evaluation; None without one.
          of_clients: names of the figures on clients' own test images that are not finite.

        Returns:
          `diverged`, a text, if the model, a loss or a figure is not finite; `diverged_clients`,
          the ids of those whose loss or update is not, at most 20, and `diverged_count` if any.
        """
        clients = np.sort(np.asarray(result.cohort)[np.asarray(result.diverged)]).tolist()
        wrong = [] if bool(result.finite) else ["the server's model"]
        # Nobody's loss is no number either; those who are left out have none that counts.
        if float(result.images) > 0 and not self._skips and not np.isfinite(result.train_loss):
            wrong.append("the training loss")
        for name in ("test_loss", self._headline):
            if figures is not None and name in figures and not np.isfinite(figures[name]):
                wrong.append(name)
        wrong += of_clients
        row: dict[str, Any] = {}
        if wrong or (clients and not self._skips):
            row["diverged"] = ", ".join(dict.fromkeys(wrong)) or "an update"
        if clients:
            row |= {"diverged_clients": clients[:_NAMED], "diverged_count": len(clients)}
        return row

    def heed(self, row: Mapping[str, Any], say: Say) -> None:
        """Warn of the first row of its kind.

        Raises:
          DivergedError: if the run stops at a divergence.
        """
        if "diverged" in row:
            line = f"round {row['round']}: not finite: {row['diverged']}{_clients(row)}"
            advice = "lower learning_rate, or cut gradients with clip_norm"
            if self._stops:
                raise DivergedError(f"{line}; stopped (on_divergence=stop): {advice}")
            self._once("diverged", f"warning: {line}; the run goes on: {advice}", say)
        elif "diverged_count" in row:
            line = f"round {row['round']}: left out{_clients(row)}, whose loss or update is not "
            self._once("left out", f"warning: {line}finite (on_divergence=skip_client)", say)

    def _once(self, kind: str, line: str, say: Say) -> None:
        if kind not in self._told:
            self._told.add(kind)
            say(line)


def summary_of(config: ExperimentConfig, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `diverged_round`, the first one or None, and `skipped_clients` where any can be."""
    first = next((row["round"] for row in rows if "diverged" in row), None)
    if config.on_divergence != "skip_client":
        return {"diverged_round": first}
    skipped = sum(row.get("diverged_count", 0) for row in rows)
    return {"diverged_round": first, "skipped_clients": skipped}


def _clients(row: Mapping[str, Any]) -> str:
    named, count = row.get("diverged_clients", []), row.get("diverged_count", 0)
    if not count:
        return ""
    more = f" and {count - len(named)} more" if count > len(named) else ""
    return f" (client{'s' * (count > 1)} {', '.join(map(str, named))}{more})"
