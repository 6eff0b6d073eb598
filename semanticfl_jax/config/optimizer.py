"""Configuration of what clients and server optimise with, and of how rates change over rounds.

The rates of a round are arguments of the compiled program: runs that differ in them, in their
schedules or in the seed share one compilation.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

from semanticfl_jax.config.fields import (
    Choosing,
    Config,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.registry import OPTIMIZERS, SCHEDULES, SERVER_OPTIMIZERS

_CLIENTS = "semanticfl_jax.federated.optimizers"
_RATES = "semanticfl_jax.federated.rates"
_SERVER = "semanticfl_jax.algorithms.server_optimizers"
_ADAPTIVE = "semanticfl_jax.algorithms.fedadam"


@dataclasses.dataclass(frozen=True)
class SGDConfig(Config):
    """SGD with `momentum`, in PyTorch's form."""

    #: Whether the step looks ahead along the momentum.
    nesterov: bool = False


@dataclasses.dataclass(frozen=True)
class AdamConfig(Config):
    """Adam's moments; they start from zero in every round, as momentum does."""

    #: Decay of the mean of the gradients.
    beta1: float = 0.9
    #: Decay of the mean of their squares.
    beta2: float = 0.999
    #: Added to the root of the second.
    epsilon: float = 1e-8

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "at least 0 and below 1", value)
        require_positive(self, "epsilon")


@dataclasses.dataclass(frozen=True)
class RMSPropConfig(Config):
    """RMSProp's second moment."""

    #: Decay of the mean square, from step to step.
    decay: float = 0.9
    #: Added to the mean square.
    epsilon: float = 1e-8

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 <= self.decay < 1, "decay", "at least 0 and below 1", self.decay)
        require_positive(self, "epsilon")


@dataclasses.dataclass(frozen=True)
class CosineConfig(Config):
    """Half a cosine wave over all rounds."""

    #: Share of the rate that the wave ends at.
    final: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 <= self.final <= 1, "final", "from 0 to 1", self.final)


@dataclasses.dataclass(frozen=True)
class ExponentialConfig(Config):
    """A constant factor a round."""

    #: FedRCL (CVPR 2024) has 0.998 a round; FedDyn's authors tune it near 1.
    decay: float = 0.998

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 < self.decay <= 1, "decay", "above 0 and at most 1", self.decay)


@dataclasses.dataclass(frozen=True)
class StepConfig(Config):
    """A factor every so many rounds."""

    #: What the rate is multiplied by.
    factor: float = 0.1
    #: Rounds between two such steps.
    every: int = 100

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 < self.factor <= 1, "factor", "above 0 and at most 1", self.factor)
        require_at_least(self, 1, "every")


OPTIMIZERS.register(
    "sgd",
    f"{_CLIENTS}:sgd",
    settings=SGDConfig,
    about="SGD; weight decay enters the gradient, before the momentum",
    uses=("momentum",),
    sgd=True,
)
OPTIMIZERS.register(
    "adam",
    f"{_CLIENTS}:adam",
    settings=AdamConfig,
    about="Kingma, Ba, ICLR 2015; weight decay enters the gradient",
)
OPTIMIZERS.register(
    "adamw",
    f"{_CLIENTS}:adam",
    settings=AdamConfig,
    about="Loshchilov, Hutter, ICLR 2019: Adam with decoupled weight decay",
    decoupled=True,
)
OPTIMIZERS.register(
    "rmsprop",
    f"{_CLIENTS}:rmsprop",
    settings=RMSPropConfig,
    about="Tieleman, Hinton, 2012: steps scaled by the root of the mean square",
)
OPTIMIZERS.register(
    "adagrad", f"{_CLIENTS}:adagrad", about="Duchi, Hazan, Singer, JMLR 2011, within a round"
)

SERVER_OPTIMIZERS.register(
    "sgd", f"{_SERVER}:sgd", about="One step along the average update", rate=1.0
)
SERVER_OPTIMIZERS.register(
    "momentum",
    f"{_SERVER}:momentum",
    about="Hsu et al., arXiv 1909.06335",
    uses=("server_momentum",),
    rate=1.0,
)
for _name in ("adam", "yogi"):
    SERVER_OPTIMIZERS.register(
        _name,
        f"{_ADAPTIVE}:{_name}",
        about="Reddi et al., ICLR 2021, without bias correction",
        uses=("server_momentum", "server_beta2", "server_tau"),
        rate=0.01,
    )
SERVER_OPTIMIZERS.register(
    "adagrad",
    f"{_ADAPTIVE}:adagrad",
    about="Reddi et al., ICLR 2021",
    uses=("server_momentum", "server_tau"),
    rate=0.01,
)

SCHEDULES.register("constant", f"{_RATES}:constant", about="The same rate in every round")
SCHEDULES.register(
    "cosine",
    f"{_RATES}:cosine",
    settings=CosineConfig,
    about="Loshchilov, Hutter, ICLR 2017, without restarts: half a cosine wave over all rounds",
    rounds_matter="its wave ends with the last round",
)
SCHEDULES.register(
    "exponential",
    f"{_RATES}:exponential",
    settings=ExponentialConfig,
    about="A constant factor a round",
)
SCHEDULES.register(
    "step", f"{_RATES}:step", settings=StepConfig, about="A factor every so many rounds"
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Choosing):
    """What clients optimise with, and how their rate, and the server's, change over rounds."""

    registries: ClassVar = {
        "name": OPTIMIZERS,
        "schedule": SCHEDULES,
        "server_schedule": SCHEDULES,
    }

    name: Annotated[str, OPTIMIZERS] = "sgd"
    #: Of `learning_rate` over the rounds.
    schedule: Annotated[str, SCHEDULES] = "constant"
    #: Rounds over which the clients' rate first rises linearly; 0: none.
    warmup_rounds: int = 0
    #: Factor of the clients' rate for every local epoch of a round that is done; FedRCL (CVPR 2024)
    #: has 0.998, as over rounds.
    epoch_decay: float = 1.0
    #: Of `algorithm.server_learning_rate` over the rounds; it shares the settings of `schedule`.
    server_schedule: Annotated[str, SCHEDULES] = "constant"
    #: By name: settings of the optimiser and of the schedules.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "warmup_rounds")
        decay = self.epoch_decay
        require(0 < decay <= 1, "epoch_decay", "above 0 and at most 1", decay)

    def rounds_matter(self) -> str | None:
        """Return why the number of rounds decides what a round does; None: it does not."""
        for name in (self.schedule, self.server_schedule):
            reason = SCHEDULES[name].traits.rounds_matter
            if reason:
                return f"{name}: {reason}"
        return None
