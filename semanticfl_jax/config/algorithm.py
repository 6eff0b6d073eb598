"""Configuration of the federated algorithm: its name, and a group of settings for each.

    --config.algorithm.name=moon --config.algorithm.moon.mu=5

Three choices are separate: the local objective (`name`), the aggregation weights (`weights`) and
the server's optimiser (`server_optimizer`). The last two are `auto` by default: what the paper of
the algorithm does. Combinations that contradict an algorithm are refused with the reason.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from semanticfl_jax.config.baselines import FedDiscoConfig
from semanticfl_jax.config.fields import Choosing, changed_fields, require, require_positive
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import ALGORITHMS, SERVER_OPTIMIZERS, Entry

ALGORITHMS.register(
    "semanticfl",
    "semanticfl_jax.algorithms.fedavg:fedavg",
    about="arXiv 2603.19337: FedAvg with guidance.enabled. Sends the anchors, once",
    guided=True,
)


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig(Choosing):
    """The federated algorithm. `semanticfl` is `fedavg` with `guidance.enabled`.

    >>> import semanticfl_jax as sfl
    >>> sfl.AlgorithmConfig("fedprox", settings={"mu": 0.1}).settings
    FedProxConfig(mu=0.1)
    >>> sfl.AlgorithmConfig("fedadam").server_rate
    0.01
    >>> sfl.AlgorithmConfig("FedAvg")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    semanticfl_jax.errors.ConfigError: name must be one of ... Did you mean fedavg?

    Raises:
      ConfigError: for a value that is not allowed, or that contradicts the algorithm.
    """

    registries: ClassVar = {"name": ALGORITHMS}

    name: Annotated[str, ALGORITHMS] = "fedavg"
    #: Weights of the clients' updates; auto: by size, uniform in SCAFFOLD, FedRCL, FedDyn, pFedMe
    #: and q-FFL, and where `availability.sampling` is size_weighted; FedDisco's own.
    weights: Literal["auto", "size", "uniform", "disco"] = "auto"
    #: What the server does with the average update; auto: one step along it, unless the algorithm
    #: is a server optimiser.
    server_optimizer: Literal["auto"] | Annotated[str, SERVER_OPTIMIZERS] = "auto"
    #: Step along the average update: 1 replaces the model by the clients' average. Auto: 1, and
    #: 0.01 for adam, yogi and adagrad. FedAvgM's damped form is 1 - server_momentum.
    server_learning_rate: float | Literal["auto"] = "auto"
    #: beta of momentum, beta_1 of adam, yogi and adagrad.
    server_momentum: float = 0.9
    #: beta_2 of adam and yogi.
    server_beta2: float = 0.99
    #: Added to the root of the second moment, which starts from its square, in adam, yogi and
    #: adagrad.
    server_tau: float = 1e-3
    #: Of the weights disco, whichever algorithm has them.
    feddisco: FedDiscoConfig = dataclasses.field(default_factory=FedDiscoConfig)
    #: The algorithm's own settings, for instance `FedProxConfig(mu=0.1)`.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range, or what contradicts the algorithm."""
        rate = self.server_learning_rate
        require(
            rate == "auto" or rate > 0, "server_learning_rate", '"auto" or greater than 0', rate
        )
        for name in ("server_momentum", "server_beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "at least 0 and below 1", value)
        require_positive(self, "server_tau")
        traits, optimizer = self.entry.traits, self.server_optimizer
        if traits.server_step and optimizer != "auto":
            self._refuse("server_optimizer", "auto", traits.server_step)
        fixed = traits.server_optimizer
        if fixed and optimizer not in ("auto", fixed):
            self._refuse("server_optimizer", f"auto or {fixed}", "it is that server optimiser")
        if traits.server_rate and rate != "auto":
            self._refuse("server_learning_rate", "auto", traits.server_rate)
        allowed = traits.weights
        if allowed is not None and self.weights not in ("auto", *allowed):
            self._refuse("weights", " or ".join(("auto", *allowed)), traits.weights_reason)

    def _refuse(self, field: str, allowed: str, reason: str) -> None:
        value = getattr(self, field)
        raise ConfigError(
            f"{field} must be {allowed} with algorithm.name={self.name} ({reason}), got {value!r}"
        )

    @property
    def entry(self) -> Entry:
        """The registry's entry of the algorithm."""
        return ALGORITHMS[self.name]

    @property
    def uses_label_counts(self) -> bool:
        """Whether clients tell the server how many images of each class they have."""
        return "disco" in (self.weights, *(self.entry.traits.weights or ()))

    @property
    def optimizer(self) -> str:
        """The server optimiser that is meant, "auto" resolved."""
        if self.server_optimizer != "auto":
            return self.server_optimizer
        return self.entry.traits.server_optimizer or "sgd"

    @property
    def server_rate(self) -> float:
        """The server learning rate that is meant, "auto" resolved.

        0.01 for adaptive optimisers, whose steps do not follow the update's size, is our choice
        within the range 1e-3 .. 1e-1 that FedOpt's authors search.
        """
        if self.server_learning_rate != "auto":
            return self.server_learning_rate
        return SERVER_OPTIMIZERS[self.optimizer].traits.rate

    def unused(self) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason."""
        found: dict[str, str] = {}
        changed, uses = changed_fields(self), SERVER_OPTIMIZERS[self.optimizer].uses
        for name in ("server_momentum", "server_beta2", "server_tau"):
            if name in changed and name not in uses:
                found[name] = f"the server optimiser is {self.optimizer}"
        if "feddisco" in changed and not self.uses_label_counts:
            found["feddisco"] = f"algorithm.name is {self.name} and algorithm.weights is not disco"
        return found


def knobs(name: str) -> dict[str, object]:
    """Return the defaults of an algorithm's settings, by their names within `algorithm`."""
    entry, config = ALGORITHMS[name], AlgorithmConfig(name=name)
    own = {f"{name}.{key}": value for key, value in vars(config.settings).items()}
    for path in entry.uses:
        value: Any = config
        for part in path.split("."):
            value = getattr(value, part)
        own[path] = value
    return own
