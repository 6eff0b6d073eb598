"""Figures of the models that clients were tested with on their own images, over all clients.

A test is {model: (headline [N], loss [N])}, of the models "global", "personal" and "fine_tuned";
NaN for a client without test images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.reporting import markdown
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.reporting.runs import Method

Tests = Mapping[str, tuple[np.ndarray, np.ndarray]]

#: In the order in which they are shown.
MODELS = ("global", "fine_tuned", "personal")
TITLES = {"global": "server's", "fine_tuned": "fine-tuned", "personal": "clients' own"}


def fields(model: str, metric: Metric) -> tuple[str, str, str, str]:
    """Return the names of a model's figures: mean, worst decile, spread, and loss."""
    name = f"{model}_client_{metric.short}"
    return name, f"{name}_worst_decile", f"{name}_std", f"{model}_client_loss"


def all_fields(metric: Metric) -> set[str]:
    """Return the names of all models' figures."""
    return {name for model in MODELS for name in fields(model, metric)}


def is_field(name: str) -> bool:
    """Return whether a field of a row is one of these figures."""
    return any(name.startswith(f"{model}_client_") for model in MODELS)


def over_clients(tests: Tests, metric: Metric, tested: np.ndarray) -> dict[str, float]:
    """Return figures over clients, each of whom counts alike, for metrics.jsonl.

    Of each model the mean of the headline, its mean over the worst tenth of the clients (one at
    least), its standard deviation, and the mean loss. NaN where no client is tested, or where the
    model of one that is came to no number: without it the others' figures would look better. A
    headline that is none though the loss is one is left out: its few images do not have it.

    Args:
      tests: of all clients.
      metric: by which the task judges models.
      tested: bool [N], who has images to be tested on.
    """
    row: dict[str, float] = {}
    for model, (headline, loss) in tests.items():
        known = headline[tested & (np.isfinite(headline) | ~np.isfinite(loss))].astype(np.float64)
        known = np.sort(known) if np.all(np.isfinite(known)) else np.array([np.nan])
        known = known if metric.higher else known[::-1]
        worst = known[: max(1, len(known) // 10)]
        mean, tail, spread, mean_loss = fields(model, metric)
        row[mean] = _mean(known)
        row[tail] = _mean(worst)
        row[spread] = float(known.std()) if len(known) else np.nan
        row[mean_loss] = _mean(loss[tested])
    return row


def not_finite(tests: Tests, metric: Metric, tested: np.ndarray) -> list[str]:
    """Return the names of the losses over clients that are not finite because of a client's."""
    return [
        fields(model, metric)[-1]
        for model, (_, loss) in tests.items()
        if not np.all(np.isfinite(loss[tested]))
    ]


def last_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of the last test among a run's rows; empty if there was none."""
    for row in reversed(rows):
        found = {name: value for name, value in row.items() if is_field(name)}
        if found:
            return found
    return {}


def table(methods: Sequence[Method], metric: Metric) -> str | None:
    """Return a Markdown table of what models are worth to the clients, one line a method.

    Each figure is a mean over clients, or over the worst tenth of them, of the run's last test;
    mean ± sample standard deviation over seeds.

    Returns:
      None if no run tested its clients.
    """
    columns = [
        (f"{TITLES[model]}{words} {metric.column}", fields(model, metric)[index])
        for model in MODELS
        for index, words in enumerate((" model,", ", worst tenth,"))
    ]
    columns = [each for each in columns if any(method.values(each[1]) for method in methods)]
    if not columns:
        return None
    lines = [["on the clients' own test images", *(title for title, _ in columns)]]
    for method in methods:
        cells = [method.spread(metric, name) for _, name in columns]
        lines.append([method.label, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(x.rjust(w) for x, w in zip(line[1:], widths[1:], strict=True))]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(map(markdown.row, padded))


def save(path: str | os.PathLike, tests: Tests, metric: Metric) -> None:
    """Write every client's figures: arrays MODEL_METRIC and MODEL_loss, float32 [N], no pickles."""
    arrays = {}
    for model, (headline, loss) in tests.items():
        arrays |= {f"{model}_{metric.short}": headline, f"{model}_loss": loss}
    files.write(path, lambda file: np.savez(file, **arrays))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan
