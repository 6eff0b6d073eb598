"""What the server model is worth to each client, and how evenly: fairness figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.files import to_json_values

#: Clients whose accuracies a summary lists one by one.
MAX_LISTED = 1000


def client_accuracy(class_accuracy: np.ndarray, label_counts: np.ndarray) -> np.ndarray:
    """Return accuracy that each client can expect on images like its own.

    The server model's accuracy on every class, weighted by the client's label distribution: as if
    test images were drawn by the client's labels. The expectation, without its sampling noise; it
    does not see a client's corruptions (our choice).

    Args:
      class_accuracy: fractions [K], NaN for classes without test images, which are left out.
      label_counts: [N, K], training images of each class at each client.

    Returns:
      float64 [N]; NaN for a client without images of any tested class.
    """
    accuracy = np.asarray(class_accuracy, np.float64)
    tested = np.isfinite(accuracy)
    counts = np.asarray(label_counts)[:, tested]
    total = counts.sum(1)
    return np.where(total > 0, counts @ accuracy[tested] / np.maximum(total, 1), np.nan)


def fairness(accuracies: np.ndarray) -> dict[str, float]:
    """Return how evenly the model serves the clients (Li et al., ICLR 2020, report the same two).

    Args:
      accuracies: fractions [N]; NaN are left out.

    Returns:
      `worst_decile_accuracy`, the mean over the worst tenth of the clients, one at least; and
      `client_accuracy_variance`. NaN if no client is left.
    """
    known = np.sort(accuracies[np.isfinite(accuracies)])
    if not len(known):
        return {"worst_decile_accuracy": np.nan, "client_accuracy_variance": np.nan}
    worst = known[: max(1, len(known) // 10)]
    return {
        "worst_decile_accuracy": float(worst.mean()),
        "client_accuracy_variance": float(known.var()),
    }


def evaluated(figures: Mapping[str, Any], label_counts: np.ndarray) -> dict[str, Any]:
    """Return an evaluation's figures, the worst class's and the clients', for metrics.jsonl.

    Args:
      figures: `test_accuracy`, `test_loss`, `class_accuracy` [K] and `ece`, on the host.
      label_counts: [N, K].
    """
    accuracy = np.asarray(figures["class_accuracy"], np.float64)
    tested = accuracy[np.isfinite(accuracy)]
    return {
        **figures,
        "worst_class_accuracy": float(tested.min()) if len(tested) else np.nan,
        **fairness(client_accuracy(accuracy, label_counts)),
    }


def final_figures(
    row: Mapping[str, Any], class_names: Sequence[str], label_counts: np.ndarray
) -> dict[str, Any]:
    """Return figures of the last round for summary.json, with names.

    Returns:
      `class_accuracy` {name: fraction}, `worst_class` (a name), `worst_class_accuracy`,
      `client_accuracy` [N] where there are no more than `MAX_LISTED` clients (for more, it follows
      from `class_accuracy` and partition.npz), `worst_decile_accuracy`,
      `client_accuracy_variance` and `ece`.
    """
    accuracy = np.array(row["class_accuracy"], np.float64)  # null becomes NaN
    known = np.isfinite(accuracy)
    worst = np.flatnonzero(known)[accuracy[known].argmin()] if known.any() else None
    result = {
        "class_accuracy": dict(zip(class_names, accuracy, strict=True)),
        "worst_class": None if worst is None else class_names[worst],
    }
    if len(label_counts) <= MAX_LISTED:
        result["client_accuracy"] = client_accuracy(accuracy, label_counts)
    names = ("worst_class_accuracy", "worst_decile_accuracy", "client_accuracy_variance", "ece")
    return to_json_values({**result, **{name: row[name] for name in names if name in row}})
