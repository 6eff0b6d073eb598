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
from typing import Annotated, Any, ClassVar, Literal

from semanticfl_jax.config.fields import FREE, Choosing, Config, require, require_at_least
from semanticfl_jax.config.values import PathText
from semanticfl_jax.registry import PARTITIONS, Entry


def _require_share(group: object, *names: str) -> None:
    for name in names:
        require(0 <= getattr(group, name) <= 1, name, "from 0 to 1", getattr(group, name))


_SCHEMES = "semanticfl_jax.data.partition.schemes"
_NID2 = ("biased_clients", "classes_per_biased", "biased_share")

PARTITIONS.register(
    "iid", f"{_SCHEMES}:iid", about="Shuffled samples in equal parts", classes=False
)
PARTITIONS.register(
    "dirichlet",
    "semanticfl_jax.data.partition.label_dirichlet:dirichlet",
    about="Yurochkin et al., ICML 2019; Hsu et al., 2019: labels by Dirichlet shares",
    uses=("alpha",),
)
PARTITIONS.register(
    "nid1",
    "semanticfl_jax.data.partition.label_dirichlet:nid1",
    about="FedDifRC family, ICCV 2025: Dirichlet in groups of 5 clients, re-cut into equal parts",
    uses=("alpha",),
)
PARTITIONS.register(
    "nid2",
    f"{_SCHEMES}:nid2",
    about="FedDifRC family, ICCV 2025 [our form]: clients of few classes beside clients of all",
    uses=_NID2,
)
PARTITIONS.register(
    "shards",
    f"{_SCHEMES}:shards",
    about="McMahan et al., AISTATS 2017: sorted by label, cut into shards, some for each client",
    uses=("shards_per_client",),
)
PARTITIONS.register(
    "quantity",
    f"{_SCHEMES}:quantity",
    about="NIID-Bench, ICDE 2022: sizes by Dirichlet shares, labels IID",
    uses=("alpha",),
    classes=False,
)
PARTITIONS.register(
    "natural",
    f"{_SCHEMES}:natural",
    about="By a column of the data set: a writer, a hospital, a superclass",
    uses=("column",),
    classes=False,
)


@dataclasses.dataclass(frozen=True)
class PartitionConfig(Choosing):
    """How training samples are divided among clients."""

    registries: ClassVar = {"scheme": PARTITIONS}

    scheme: Annotated[str, PARTITIONS] = "nid1"
    #: Dirichlet concentration, over labels (dirichlet, nid1) or sizes (quantity); smaller is more
    #: skewed.
    alpha: float = 0.2
    #: Pieces of one class, or nearly so, that each client gets (shards).
    shards_per_client: int = 2
    #: Clients that hold few classes (nid2); all others hold every class.
    biased_clients: int = 6
    #: Classes that each of those holds (nid2).
    classes_per_biased: int = 1
    #: Share of such a class that its biased clients take (nid2).
    biased_share: float = 0.5
    #: Column of the data set whose values are the clients (natural).
    column: str | None = None
    #: Long tail, with every scheme: how many times as many samples the first class keeps as the
    #: last, exponentially between; 1 keeps all.
    imbalance_factor: float = 1.0
    #: partition.npz of an earlier run or of launch.partition, used as it is.
    file: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: Settings of a scheme that has some of its own.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 < self.alpha < math.inf, "alpha", "greater than 0 and finite", self.alpha)
        require_at_least(self, 1, "shards_per_client", "classes_per_biased", "imbalance_factor")
        require_at_least(self, 0, "biased_clients")
        share = self.biased_share
        require(0 < share <= 1, "biased_share", "above 0 and at most 1", share)
        require(
            ("column" in self.entry.uses) == (self.column is not None),
            "column",
            'the name of a column when scheme is "natural", and none otherwise',
            self.column,
        )

    @property
    def entry(self) -> Entry:
        """The registry's entry of the scheme."""
        return PARTITIONS[self.scheme]


@dataclasses.dataclass(frozen=True)
class FeatureSkewConfig(Config):
    """Clients whose images are corrupted: each by one kind, of a severity of its own."""

    #: Kinds to draw a client's from; empty: no image is corrupted.
    corruptions: tuple[Literal["noise", "blur", "low_resolution", "contrast"], ...] = ()
    #: Share of the clients that are corrupted.
    share: float = 1.0
    #: A client's severity is drawn uniformly from here to there; 0 changes nothing.
    min_severity: float = 0.2
    #: The other end.
    max_severity: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        _require_share(self, "share", "min_severity", "max_severity")
        require(
            self.min_severity <= self.max_severity,
            "min_severity",
            f"at most max_severity ({self.max_severity})",
            self.min_severity,
        )


@dataclasses.dataclass(frozen=True)
class ModalityConfig(Config):
    """Clients that lack a part of semantic guidance, and therefore its term of the loss."""

    #: Share of the clients without text anchors.
    without_text: float = 0.0
    #: Share of the clients without visual anchors.
    without_visual: float = 0.0
    #: Share of the clients without either.
    without_both: float = 0.0
    #: Share of the clients without the student, whatever anchors they have.
    without_student: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        _require_share(self, "without_text", "without_visual", "without_both", "without_student")
        require(
            self.total <= 1, "without_both", "such that the three shares sum to 1 at most", self
        )

    @property
    def total(self) -> float:
        """Share of the clients that lack some anchors."""
        return self.without_text + self.without_visual + self.without_both


@dataclasses.dataclass(frozen=True)
class AvailabilityConfig(Config):
    """Which clients take part in a round, and how much of their work they do."""

    #: uniform: at random. size_weighted: at random, large clients more often; updates then count
    #: alike unless `algorithm.weights` says otherwise. round_robin: in turn, in a random order that
    #: is drawn once. fixed_order: in turn, by number. poisson: each client by itself, with
    #: probability clients_per_round / num_clients, so that cohorts differ in size.
    sampling: Literal["uniform", "size_weighted", "round_robin", "fixed_order", "poisson"] = (
        "uniform"
    )
    #: Probability that a chosen client receives the model and never reports.
    dropout: float = 0.0
    #: Probability that a client does only part of its local steps in a round.
    straggler_share: float = 0.0
    #: Least part of its steps that such a client does; the part is drawn uniformly up to 1.
    straggler_min_work: float = 0.1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        _require_share(self, "straggler_share", "straggler_min_work")
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)

    def places(self, clients: int, mean: int) -> int:
        """Return the most clients that a cohort can have.

        Poisson sampling has room for all but one in 10^10 cohorts that a certain client is in; of a
        larger one some are left out at random, which the accounting of privacy knows.

        Args:
          clients: in all.
          mean: in a cohort, on average.
        """
        if self.sampling != "poisson":
            return mean
        from scipy.stats import binom  # not before: it takes long to import

        return min(clients, 1 + int(binom.isf(1e-10, clients - 1, mean / clients)) + 1)
