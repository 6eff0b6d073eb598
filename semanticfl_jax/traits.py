"""What the configuration has to know of each kind of thing that is chosen by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from semanticfl_jax.errors import SemanticFLError


@dataclasses.dataclass(frozen=True)
class AlgorithmTraits:
    """What the configuration has to know of an algorithm.

    Attributes:
      server_step: why no server optimiser can take the place of its own step; None: one can.
      server_rate: why no server learning rate can scale its step; None: one can.
      server_optimizer: the server optimiser that it is; None: it is none.
      average: why its updates must be averaged, by no other aggregator than the mean; None: they
        need not be.
      silent: whether its clients send nothing at all.
      weights: the weights that it allows besides "auto"; None: all.
      weights_reason: why others are refused.
      sgd: why its clients must optimise with SGD at a constant rate; None: they need not.
      anchors: whether it uses semantic anchors, given its settings.
      guided: whether it is guidance on another algorithm's aggregation.
      classes: why every image must have one class; None: it need not.
      extra: what clients send in a round besides their update, in words; None: nothing. No update
        transform sees it, so that neither transforms nor privacy go with it.
      broadcast: what clients receive in a round besides the model, in words; None: nothing.
      uniform: whether its own weights are the same for all clients, whatever their sizes.
      once: what clients send once, at their first contact, in words; None: nothing.
    """

    server_step: str | None = None
    server_rate: str | None = None
    server_optimizer: str | None = None
    average: str | None = None
    silent: bool = False
    weights: tuple[str, ...] | None = None
    weights_reason: str = ""
    sgd: str | None = None
    anchors: Callable[[Any], bool] | None = None
    guided: bool = False
    classes: str | None = None
    extra: str | None = None
    once: str | None = None
    broadcast: str | None = None
    uniform: bool = False


@dataclasses.dataclass(frozen=True)
class PartitionTraits:
    """What the configuration has to know of a partition scheme.

    Attributes:
      classes: whether it goes by the samples' classes, and so needs one class an image.
    """

    classes: bool = True


@dataclasses.dataclass(frozen=True)
class TaskTraits:
    """What has to be known of a task before it is built.

    Attributes:
      labels: what an image must have: "class", one class, int32 [n]; "binary", K labels of 0 or 1,
        uint8 [n, K]; "numbers", K numbers, float32 [n, K]; "tokens", one of K classes at each
        position, int32 [n, ...], -1 where a position does not count: the network then returns
        logits with the same positions, [n, ..., K].
    """

    labels: Literal["class", "binary", "numbers", "tokens"] = "class"

    def __post_init__(self) -> None:
        if self.labels not in ("class", "binary", "numbers", "tokens"):
            raise SemanticFLError(
                f"a task's labels must be class, binary, numbers or tokens, got {self.labels!r}"
            )


@dataclasses.dataclass(frozen=True)
class AggregatorTraits:
    """What the configuration has to know of an aggregator.

    Attributes:
      weighted: whether it heeds the clients' weights.
      public: whether it needs images of the server's own.
      encodes: whether it changes every update by itself, so that clients can send nothing else.
      codes: whether its encoding decides how many bytes an update takes.
      scale_free: whether updates that differ in their length alone are the same to it.
    """

    weighted: bool = True
    public: bool = False
    encodes: bool = False
    codes: bool = False
    scale_free: bool = False


@dataclasses.dataclass(frozen=True)
class AttackTraits:
    """What the configuration has to know of an attack.

    Attributes:
      forges: whether attackers send other updates than they trained; a function of its settings,
        if these decide.
      colludes: whether attackers see the honest clients' updates of the round.
      classes: why every image must have one class; None: it need not.
      images: why inputs must be images; None: they need not.
    """

    forges: bool | Callable[[Any], bool] = False
    colludes: bool = False
    classes: str | None = None
    images: str | None = None


@dataclasses.dataclass(frozen=True)
class TransformTraits:
    """What the configuration has to know of an update transform.

    Attributes:
      compresses: whether it decides how many bytes an update takes.
      scales: whether all that it does to an update is to scale it.
    """

    compresses: bool = False
    scales: bool = False


@dataclasses.dataclass(frozen=True)
class OptimizerTraits:
    """What the configuration has to know of an optimiser.

    Attributes:
      sgd: whether its steps go along the gradient, momentum included.
      decoupled: whether weight decay is no part of the gradient.
    """

    sgd: bool = False
    decoupled: bool = False


@dataclasses.dataclass(frozen=True)
class ServerOptimizerTraits:
    """What the configuration has to know of a server optimiser.

    Attributes:
      rate: what `algorithm.server_learning_rate` is by default.
    """

    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class ScheduleTraits:
    """What the configuration has to know of a schedule.

    Attributes:
      rounds_matter: why the number of all rounds decides the rate of each; None: it does not.
    """

    rounds_matter: str | None = None
