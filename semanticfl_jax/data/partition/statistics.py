"""How different the clients of a partition are, in numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from semanticfl_jax.errors import SemanticFLError

#: What `PartitionStatistics.summary` tells of the figures of clients.
SPREAD = ("mean", "min", "median", "max")


@dataclasses.dataclass(frozen=True, eq=False)
class PartitionStatistics:
    """Figures of every client; those of labels are NaN for a client without samples.

    Attributes:
      num_classes: number of classes K.
      sizes: samples, int `[N]`.
      effective_classes: exp of the entropy of the labels, float `[N]` from 1 to K: as many equally
        frequent classes would have that entropy.
      total_variation: distance of the labels' distribution to that of all dealt samples, half the
        sum of absolute differences, float `[N]` from 0 (the same) to 1 (nothing in common).
      largest_share: share of the most frequent class, float `[N]`.
    """

    num_classes: int
    sizes: np.ndarray
    effective_classes: np.ndarray
    total_variation: np.ndarray
    largest_share: np.ndarray

    @property
    def gini(self) -> float:
        """Gini coefficient of the sizes: 0 when all are equal, near 1 when one client has all."""
        sizes = np.sort(self.sizes).astype(float)
        rank = np.arange(1, len(sizes) + 1)
        return float(((2 * rank - len(sizes) - 1) * sizes).sum() / (len(sizes) * sizes.sum()))

    def summary(self) -> dict[str, Any]:
        """Return the figures as plain numbers for JSON; those of clients as `SPREAD` over them."""

        def spread(values: np.ndarray) -> dict[str, float]:
            values = values[~np.isnan(values)]
            return {name: getattr(np, name)(values).item() for name in SPREAD}

        return {
            "clients": len(self.sizes),
            "samples": int(self.sizes.sum()),
            "classes": self.num_classes,
            "sizes": spread(self.sizes),
            "gini": self.gini,
            "effective_classes": spread(self.effective_classes),
            "total_variation": spread(self.total_variation),
            "largest_share": spread(self.largest_share),
        }


def partition_statistics(label_counts: np.ndarray) -> PartitionStatistics:
    """Return figures of a partition.

    Args:
      label_counts: samples of each class at each client, int `[N, K]`.

    Raises:
      SemanticFLError: if it has another shape, a negative number, or no samples at all.
    """
    counts = np.asarray(label_counts)
    if counts.ndim != 2 or not counts.size or (counts < 0).any() or not counts.any():
        raise SemanticFLError(
            "label_counts must be numbers of samples [clients, classes], not all 0, got "
            f"{counts.dtype} {list(counts.shape)}"
        )
    sizes = counts.sum(1)
    share = counts / np.where(sizes > 0, sizes, np.nan)[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    overall = counts.sum(0) / sizes.sum()
    return PartitionStatistics(
        num_classes=counts.shape[1],
        sizes=sizes,
        effective_classes=np.exp(entropy),
        total_variation=np.abs(share - overall).sum(1) / 2,
        largest_share=share.max(1),
    )


def table(summary: Mapping[str, Any]) -> str:
    """Return the figures of a partition (`PartitionStatistics.summary`) as lines of text."""
    lines = [" " * 18 + "".join(f"{name:>12}" for name in summary["sizes"])]
    fields = ("sizes", "effective_classes", "largest_share", "total_variation")
    for field in filter(summary.__contains__, fields):  # without classes, sizes alone
        values = "".join(f"{value:12,.2f}" for value in summary[field].values())
        lines.append(f"{field.replace('_', ' '):18}{values}")
    return "\n".join([*lines, f"{'Gini of sizes':18}{summary['gini']:12.2f}"])
