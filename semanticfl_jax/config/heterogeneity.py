"""Configuration of what makes clients differ: labels, sizes, images, modalities, availability.

Four independent choices, which therefore compose:

    partition      which training samples a client holds
    feature_skew   how its images are corrupted
    modality       which semantic anchors it can use
    availability   how often it is chosen, and whether it finishes
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from semanticfl_jax.config.fields import require


def _require_share(group: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(group, name) <= 1, name, "from 0 to 1", getattr(group, name))


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """How training samples are dealt to clients."""

    scheme: Literal["iid", "dirichlet", "nid1", "nid2", "shards", "quantity", "natural"] = "nid1"
    #: Dirichlet concentration, over labels (dirichlet, nid1) or sizes (quantity); smaller is more
    #: skewed.
    alpha: float = 0.2
    #: Pieces of one class, or nearly so, that each client gets (shards).
    shards_per_client: int = 2
    #: nid2: clients that hold few classes, how many, and the share of such a class that its biased
    #: clients take; all other clients hold every class.
    biased_clients: int = 6
    classes_per_biased: int = 1
    biased_share: float = 0.5
    #: Column of the data set whose values are the clients (natural).
    column: str | None = None
    #: Long tail, with every scheme: how many times as many samples the first class keeps as the
    #: last, exponentially between; 1 keeps all.
    imbalance_factor: float = 1.0
    #: partition.npz of an earlier run or of launch.partition, used as it is.
    file: str | None = None

    def __post_init__(self):
        require(0 < self.alpha < math.inf, "alpha", "greater than 0 and finite", self.alpha)
        for name in ("shards_per_client", "classes_per_biased", "imbalance_factor"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.biased_clients >= 0, "biased_clients", "at least 0", self.biased_clients)
        share = self.biased_share
        require(0 < share <= 1, "biased_share", "above 0 and at most 1", share)
        natural = self.scheme == "natural"
        require(
            natural == (self.column is not None),
            "column",
            'the name of a column when scheme is "natural", and none otherwise',
            self.column,
        )


@dataclasses.dataclass(frozen=True)
class FeatureSkewConfig:
    """Clients whose images are corrupted: each by one kind, of a severity of its own."""

    #: Kinds to draw a client's from; empty: no image is corrupted.
    corruptions: tuple[Literal["noise", "blur", "low_resolution", "contrast"], ...] = ()
    #: Share of the clients that are corrupted.
    share: float = 1.0
    #: A client's severity is drawn uniformly from here to there; 0 changes nothing.
    min_severity: float = 0.2
    max_severity: float = 1.0

    def __post_init__(self):
        _require_share(self, "share", "min_severity", "max_severity")
        require(
            self.min_severity <= self.max_severity,
            "min_severity",
            f"at most max_severity ({self.max_severity})",
            self.min_severity,
        )


@dataclasses.dataclass(frozen=True)
class ModalityConfig:
    """Clients that lack a kind of semantic anchors, and therefore that term of guidance."""

    #: Shares of the clients without text anchors, without visual anchors, and with neither.
    without_text: float = 0.0
    without_visual: float = 0.0
    without_both: float = 0.0

    def __post_init__(self):
        _require_share(self, "without_text", "without_visual", "without_both")
        require(
            self.total <= 1, "without_both", "such that the three shares sum to 1 at most", self
        )

    @property
    def total(self) -> float:
        """Share of the clients that lack something."""
        return self.without_text + self.without_visual + self.without_both


@dataclasses.dataclass(frozen=True)
class AvailabilityConfig:
    """Which clients take part in a round, and how much of their work they do."""

    #: uniform: at random. size_weighted: at random, large clients oftener. round_robin: in turn, in
    #: a random order drawn once. fixed_order: in turn, by number.
    sampling: Literal["uniform", "size_weighted", "round_robin", "fixed_order"] = "uniform"
    #: Probability that a chosen client receives the model and never reports.
    dropout: float = 0.0
    #: Probability that a client does only part of its local steps in a round; the part is drawn
    #: uniformly from here to 1.
    straggler_share: float = 0.0
    straggler_min_work: float = 0.1

    def __post_init__(self):
        _require_share(self, "straggler_share", "straggler_min_work")
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)
