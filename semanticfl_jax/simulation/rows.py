"""A round's row in the history and in metrics.jsonl, and what of it a longer run keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from semanticfl_jax.federated.evaluation import ATTACK_SUCCESS
from semanticfl_jax.federated.traffic import Traffic
from semanticfl_jax.files import to_json_values
from semanticfl_jax.reporting import client_tests
from semanticfl_jax.reporting.client_accuracy import evaluated
from semanticfl_jax.simulation.divergence import COLUMNS as DIVERGENCE
from semanticfl_jax.simulation.divergence import Divergence
from semanticfl_jax.simulation.parts import Parts
from semanticfl_jax.simulation.pipeline import FinishedRound, clients_due, evaluation_due

#: What `Rows.of` tells of a round itself; evaluations and divergence add to it.
COLUMNS = (
    "round",
    "train_loss",
    "seconds",
    "images_per_second",
    "padding_share",
    "bytes_up",
    "bytes_down",
    "epsilon",
    "private",
)


class Rows:
    """Makes the rows of a run.

    Args:
      parts: what is trained.
      traffic: how much clients and server send each other.
      divergence: watches the rounds.
      rounds: of the whole run.
    """

    def __init__(self, parts: Parts, traffic: Traffic, divergence: Divergence, rounds: int):
        self._parts = parts
        self._traffic = traffic
        self._divergence = divergence
        self._rounds = rounds
        self._label_counts = parts.federation.label_counts()

    def of(self, finished: FinishedRound) -> dict[str, Any]:
        """Return the row of a round, as JSON values."""
        result, evaluation, ledger = finished.result, finished.evaluation, self._parts.ledger
        row = {
            "round": finished.number,
            "train_loss": float(result.train_loss),
            "seconds": finished.seconds,
            "images_per_second": float(result.images) / finished.seconds,
            "padding_share": float(result.padding_share),
            **self._traffic.of_round(result),
            **{name: float(value) for name, value in result.figures.items()},
        }
        if ledger is not None:
            row["epsilon"] = ledger.epsilon(finished.number)
        if not self._parts.config.private:
            row["private"] = False
        if evaluation is not None:
            row |= _evaluated(self._parts, evaluation, self._label_counts)
        own, of_clients, wrong = finished.client_tests, {}, []
        if own is not None:
            held_out = self._parts.federation.client_test
            assert held_out is not None  # else there is no test
            about = (own, self._parts.metric, held_out.sizes > 0)
            of_clients, wrong = client_tests.over_clients(*about), client_tests.not_finite(*about)
        row |= self._divergence.columns(result, evaluation, wrong)
        return to_json_values({**row, **of_clients})

    def as_planned(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row without tests that its round had only as the last of a shorter run."""
        config, number, dropped = self._parts.config, row["round"], set()
        if not evaluation_due(config, number, self._rounds):
            dropped |= self._of_evaluations
        if not clients_due(config, number, self._rounds):
            dropped |= client_tests.all_fields(self._parts.metric)
        return {name: value for name, value in row.items() if name not in dropped}

    @functools.cached_property
    def _of_evaluations(self) -> set[str]:
        return _columns_of_evaluations(self._parts)


def columns(parts: Parts) -> set[str]:
    """Return the names of all that a row may have besides what the algorithm measures."""
    own = client_tests.all_fields(parts.metric)
    return {*COLUMNS, *DIVERGENCE, *_columns_of_evaluations(parts), *own}


def _columns_of_evaluations(parts: Parts) -> set[str]:
    """Return the names of all that an evaluation puts into a row."""
    dataset = parts.federation.dataset
    shapes = parts.task.figure_shapes(dataset.num_classes, dataset.test_labels)
    figures = {name: np.zeros(figure.shape) for name, figure in shapes.items()}
    one_client = np.ones((1, dataset.num_classes))
    return {*_evaluated(parts, figures, one_client), ATTACK_SUCCESS}


def _evaluated(
    parts: Parts, figures: Mapping[str, Any], label_counts: np.ndarray
) -> Mapping[str, Any]:
    """Return what an evaluation puts into a row, with those of clients by their labels [N, K]."""
    return evaluated(figures, label_counts) if tells_classes(parts, figures) else figures


def tells_classes(parts: Parts, fields: Iterable[str]) -> bool:
    """Return whether an evaluation, or a row, has the accuracy of every class of the data set."""
    return "class_accuracy" in fields and parts.federation.dataset.has_classes
