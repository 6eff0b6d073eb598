"""Configuration of the federated algorithm: its name, and a group of settings for each.

    --config.algorithm.name=moon --config.algorithm.moon.mu=5

Three choices are separate: the local objective (`name`), the aggregation weights (`weights`) and
the server's optimiser (`server_optimizer`). The last two are `auto` by default: what the paper of
the algorithm does. Combinations that contradict an algorithm are refused with the reason.
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Literal

from semanticfl_jax.config.fields import ConfigError, require


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


@dataclasses.dataclass(frozen=True)
class MoonConfig:
    """MOON (CVPR 2021): features agree with the received model's, not with the client's last."""

    #: Weight of the contrast; its authors' best: 5 on CIFAR-10, 1 on CIFAR-100.
    mu: float = 1.0
    temperature: float = 0.5

    def __post_init__(self):
        _require_not_negative(self, "mu")
        _require_positive(self, "temperature")


@dataclasses.dataclass(frozen=True)
class FedRCLConfig:
    """FedRCL (CVPR 2024): relaxed supervised contrast on features of several depths."""

    #: Depths that are contrasted, 0 the stem; ResNet-10 has 5, the CNN 3. None: plain FedAvg.
    levels: tuple[int, ...] | Literal["all"] = "all"
    temperature: float = 0.05
    #: Cosine from which a pair of one class counts as too similar.
    threshold: float = 0.7
    weight: float = 1.0
    penalty_weight: float = 1.0

    def __post_init__(self):
        _require_positive(self, "temperature")
        _require_not_negative(self, "weight", "penalty_weight")
        require(-1 <= self.threshold <= 1, "threshold", "from -1 to 1", self.threshold)


@dataclasses.dataclass(frozen=True)
class FedDiscoConfig:
    """FedDisco (ICML 2023): less weight for clients whose labels are far from uniform."""

    #: What discrepancy costs, and what every client gets, beside its relative size.
    a: float = 0.5
    b: float = 0.1

    def __post_init__(self):
        _require_not_negative(self, "a", "b")


@dataclasses.dataclass(frozen=True)
class FedCDAConfig:
    """FedCDA (ICLR 2024): of every client's last models, those that agree are averaged."""

    #: Models K kept of every client.
    models: int = 3
    #: Lipschitz constant L: weight of the distance to the mean, beside the clients' losses.
    smoothness: float = 1.0
    #: Parts the participants are split into, each solved exhaustively; 1 is exact, the paper has 3.
    batches: int = 1
    #: Share of the rounds that are plain FedAvg first (the paper: 50 rounds of 200).
    warmup: float = 0.25
    #: "newest" takes every client's last model: an ablation.
    selection: Literal["divergence", "newest"] = "divergence"

    def __post_init__(self):
        for name in ("models", "batches"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        _require_not_negative(self, "smoothness")
        require(0 <= self.warmup <= 1, "warmup", "from 0 to 1", self.warmup)


@dataclasses.dataclass(frozen=True)
class FedDifRCConfig:
    """FedDifRC (ICCV 2025): contrast with, and regression to, a diffusion model's features."""

    #: Weight of the text-driven contrast TDCL, and of the noise-driven regression NDCR.
    lambda_tdcl: float = 1.0
    lambda_ndcr: float = 1.0
    temperature: float = 0.04

    def __post_init__(self):
        _require_not_negative(self, "lambda_tdcl", "lambda_ndcr")
        _require_positive(self, "temperature")


@dataclasses.dataclass(frozen=True)
class FedNovaConfig:
    """FedNova (NeurIPS 2020): updates divided by the clients' effective numbers of steps."""

    #: Weight of FedProx's term in the local objective.
    mu: float = 0.0

    def __post_init__(self):
        _require_not_negative(self, "mu")


@dataclasses.dataclass(frozen=True)
class FedDynConfig:
    """FedDyn (ICLR 2021): local objectives shifted so that their optima agree."""

    alpha: float = 0.01

    def __post_init__(self):
        _require_positive(self, "alpha")


#: Algorithms whose server step is their own, and why no optimiser can take its place.
_OWN_SERVER_STEP = {
    "scaffold": "its control variates assume that the model moves by the clients' average",
    "fednova": "it scales the step by the clients' effective numbers of steps itself",
    "feddyn": "it corrects the average by the clients' accumulated drift itself",
    "fedcda": "the model is the average of the models it selects",
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
        "moon",
        "fedrcl",
        "feddisco",
        "fedcda",
        "feddifrc",
        "fednova",
        "feddyn",
        "fedavgm",
        "fedadam",
        "fedyogi",
        "semanticfl",
    ] = "fedavg"
    #: Weights of the clients' updates; auto: by size, uniform in SCAFFOLD, FedRCL and FedDyn,
    #: FedDisco's own.
    weights: Literal["auto", "size", "uniform", "disco"] = "auto"
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
    moon: MoonConfig = MoonConfig()
    fedrcl: FedRCLConfig = FedRCLConfig()
    feddisco: FedDiscoConfig = FedDiscoConfig()
    fedcda: FedCDAConfig = FedCDAConfig()
    feddifrc: FedDifRCConfig = FedDifRCConfig()
    fednova: FedNovaConfig = FedNovaConfig()
    feddyn: FedDynConfig = FedDynConfig()

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
        if self.name == "feddisco" and self.weights not in ("auto", "disco"):
            reason = "it is those weights"
            raise ConfigError(
                _contradiction("weights", "auto or disco", self.name, reason, self.weights)
            )
        if self.name == "fedcda" and self.weights != "auto":
            reason = "it averages all clients alike, not the participants"
            raise ConfigError(_contradiction("weights", "auto", self.name, reason, self.weights))
        if self.name in ("feddyn", "fedcda") and rate != "auto":
            reason = _OWN_SERVER_STEP[self.name]
            raise ConfigError(
                _contradiction("server_learning_rate", "auto", self.name, reason, rate)
            )

    def check(self, clients_per_round: int, levels: int) -> None:
        """Raises `ConfigError` for settings that do not fit the experiment.

        Args:
          clients_per_round: clients that train in a round.
          levels: depths whose outputs the network gives.
        """
        chosen = self.fedrcl.levels
        if self.name == "fedrcl" and chosen != "all":
            allowed = f"from 0 to {levels - 1} with this model"
            require(all(0 <= c < levels for c in chosen), "fedrcl.levels", allowed, chosen)
        cda = self.fedcda
        part = -(-clients_per_round // cda.batches)
        if self.name == "fedcda" and cda.selection != "newest" and cda.models**part > 2**16:
            raise ConfigError(
                f"fedcda.batches: {cda.models} models of {part} clients are "
                f"{cda.models**part:,} combinations, and {2**16:,} can be tried; use more batches "
                f"than {cda.batches}, fewer models or fewer clients_per_round"
            )

    @property
    def optimizer(self) -> str:
        """The server optimiser that is meant, "auto" resolved: sgd, momentum, adam or yogi."""
        if self.server_optimizer != "auto":
            return self.server_optimizer
        return _SERVER_OPTIMIZERS.get(self.name, "sgd")


#: Each algorithm: its paper, what it does, and what it costs beyond FedAvg, whose clients keep
#: nothing and send and receive one model a round. "1 model" is the size of one.
ABOUT = {
    "fedavg": "AISTATS 2017: the average of the clients' models, by size",
    "fedprox": "MLSys 2020: clients' models are held near the received one",
    "scaffold": "ICML 2020: control variates cancel the clients' drift. "
    "Keeps 1 model a client, sends 1 more up and down",
    "moon": "CVPR 2021: features agree with the received model's, not with the client's last. "
    "Keeps 1 model a client; 2 more forward passes a step",
    "fedrcl": "CVPR 2024: relaxed supervised contrast at several depths; uniform weights",
    "feddisco": "ICML 2023: less weight for clients whose labels are far from uniform. "
    "Sends label counts, once",
    "fedcda": "ICLR 2024: averages, of every client's last models, those that agree. "
    "Keeps `models` models a client, sends 1 number more up",
    "feddifrc": "ICCV 2025: contrast with and regression to diffusion features, those of "
    "guidance.*. Sends the anchors, once",
    "fednova": "NeurIPS 2020: updates divided by effective steps. Sends 1 number more up",
    "feddyn": "ICLR 2021: local objectives shifted so that their optima agree. "
    "Keeps 1 model a client",
    "fedavgm": "arXiv 1909.06335: momentum at the server",
    "fedadam": "ICLR 2021: Adam at the server",
    "fedyogi": "ICLR 2021: Yogi at the server",
    "semanticfl": "arXiv 2603.19337: FedAvg with guidance.enabled. Sends the anchors, once",
}

_SERVER = ("server_optimizer", "server_learning_rate", "server_momentum", "server_beta2")


def knobs(name: str) -> dict[str, object]:
    """The settings of an algorithm, by their names within `algorithm`, and their defaults."""
    config = AlgorithmConfig()
    group = getattr(config, name, None)
    if group is not None:
        return {f"{name}.{key}": value for key, value in dataclasses.asdict(group).items()}
    optimizer = _SERVER_OPTIMIZERS.get(name)
    chosen = {"momentum": _SERVER[1:3], "adam": (*_SERVER[1:], "server_tau")}
    fields = chosen.get("adam" if optimizer == "yogi" else optimizer, ())
    return {field: getattr(config, field) for field in fields}


def describe_algorithms() -> str:
    """All algorithms with their papers, costs and settings: what a command's --help shows."""
    lines = ["Algorithms (--config.algorithm.name=NAME):", ""]
    for name, about in ABOUT.items():
        lines += textwrap.wrap(about, 96, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)
        settings = [f"{key}={_plain(value)}" for key, value in knobs(name).items()]
        if settings:
            text = "--config.algorithm." + " .".join(settings)
            indent = " " * 13
            lines += textwrap.wrap(text, 96, initial_indent=indent, subsequent_indent=indent)
    lines += [
        "",
        "With any of them: --config.guidance.enabled=true (semantic guidance). Where the algorithm",
        "leaves them open: --config.algorithm.weights=size|uniform|disco and",
        "--config.algorithm.server_optimizer=sgd|momentum|adam|yogi.",
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _contradiction(field: str, allowed: str, name: str, reason: str, value: object) -> str:
    return f"{field} must be {allowed} with algorithm.name={name} ({reason}), got {value!r}"
