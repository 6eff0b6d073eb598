"""Configuration of the federated algorithm: its name, and a group of settings for each.

    --config.algorithm.name=fedprox --config.algorithm.fedprox.mu=0.1

Three choices are separate: the local objective (`name`), the aggregation weights (`weights`) and
the server's optimiser (`server_optimizer`). The last two are `auto` by default: what the paper of
the algorithm does. Combinations that contradict an algorithm are refused with the reason.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config_fields import ConfigError, require


def _require_positive(group: object, *names: str) -> None:
    for name in names:
        require(getattr(group, name) > 0, name, "greater than 0", getattr(group, name))


def _require_not_negative(group: object, *names: str) -> None:
    for name in names:
        require(getattr(group, name) >= 0, name, "at least 0", getattr(group, name))


@dataclasses.dataclass(frozen=True)
class FedProxConfig:
    """FedProx (MLSys 2020): the clients' models are held near the one they received."""

    #: Weight of |y - x|^2 / 2; 0 is FedAvg. Its authors tune it in 0.001 .. 1.
    mu: float = 0.01

    def __post_init__(self):
        _require_not_negative(self, "mu")


#: Algorithms whose server step is their own, and why no optimiser can take its place.
_OWN_SERVER_STEP = {
    "scaffold": "its control variates assume that the model moves by the clients' average",
}

#: Algorithms that are a server optimiser, and which.
_SERVER_OPTIMIZERS = {"fedavgm": "momentum", "fedadam": "adam", "fedyogi": "yogi"}


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig:
    """The federated algorithm. `semanticfl` is `fedavg` with `guidance.enabled`."""

    name: Literal[
        "fedavg",
        "fedprox",
        "scaffold",
        "fedavgm",
        "fedadam",
        "fedyogi",
        "semanticfl",
    ] = "fedavg"
    #: Weights of the clients' updates; auto: by size, uniform in SCAFFOLD.
    weights: Literal["auto", "size", "uniform"] = "auto"
    #: What the server does with the average update; auto: one step along it, unless the algorithm
    #: is a server optimiser.
    server_optimizer: Literal["auto", "sgd", "momentum", "adam", "yogi"] = "auto"
    #: Step along the average update: 1 replaces the model by the clients' average. Auto: 1, and
    #: 0.01 for adam and yogi. FedAvgM's damped form is 1 - server_momentum.
    server_learning_rate: float | Literal["auto"] = "auto"
    #: beta of momentum, beta_1 of adam and yogi.
    server_momentum: float = 0.9
    #: beta_2 of adam and yogi.
    server_beta2: float = 0.99
    #: Added to the root of the second moment in adam and yogi, whose square it starts from.
    server_tau: float = 1e-3
    fedprox: FedProxConfig = FedProxConfig()

    def __post_init__(self):
        rate = self.server_learning_rate
        require(
            rate == "auto" or rate > 0, "server_learning_rate", '"auto" or greater than 0', rate
        )
        for name in ("server_momentum", "server_beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "at least 0 and below 1", value)
        _require_positive(self, "server_tau")
        own, optimizer = _OWN_SERVER_STEP.get(self.name), self.server_optimizer
        if own and optimizer != "auto":
            raise ConfigError(_contradiction("server_optimizer", "auto", self.name, own, optimizer))
        fixed = _SERVER_OPTIMIZERS.get(self.name)
        if fixed and optimizer not in ("auto", fixed):
            reason = "it is that server optimiser"
            raise ConfigError(
                _contradiction("server_optimizer", f"auto or {fixed}", self.name, reason, optimizer)
            )

    @property
    def optimizer(self) -> str:
        """The server optimiser that is meant, "auto" resolved: sgd, momentum, adam or yogi."""
        if self.server_optimizer != "auto":
            return self.server_optimizer
        return _SERVER_OPTIMIZERS.get(self.name, "sgd")


def _contradiction(field: str, allowed: str, name: str, reason: str, value: object) -> str:
    return f"{field} must be {allowed} with algorithm.name={name} ({reason}), got {value!r}"
