"""Configuration of the algorithms that guidance is compared with: settings and entry of each."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from semanticfl_jax.config.fields import (
    Config,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import ALGORITHMS

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class FedProxConfig(Config):
    """FedProx (MLSys 2020): the clients' models are held near the one they received."""

    #: Weight of |y - x|^2 / 2; 0 is FedAvg. Its authors tune it in 0.001 .. 1.
    mu: float = 0.01

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "mu")


@dataclasses.dataclass(frozen=True)
class MoonConfig(Config):
    """MOON (CVPR 2021): features agree with the received model's, not with the client's last."""

    #: Weight of the contrast; its authors' best: 5 on CIFAR-10, 1 on CIFAR-100.
    mu: float = 1.0
    #: Temperature tau of the contrast.
    temperature: float = 0.5

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "mu")
        require_positive(self, "temperature")


@dataclasses.dataclass(frozen=True)
class FedRCLConfig(Config):
    """FedRCL (CVPR 2024): relaxed supervised contrast on features of several depths."""

    #: Depths that are contrasted, 0 the stem; ResNet-10 has 5, the CNN 3. None: plain FedAvg.
    levels: tuple[int, ...] | Literal["all"] = "all"
    #: Temperature tau of contrast and penalty.
    temperature: float = 0.05
    #: Cosine from which a pair of one class counts as too similar.
    threshold: float = 0.7
    #: Weight of the contrast.
    weight: float = 1.0
    #: Weight of the penalty on pairs that are too similar.
    penalty_weight: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "temperature")
        require_at_least(self, 0, "weight", "penalty_weight")
        require(-1 <= self.threshold <= 1, "threshold", "from -1 to 1", self.threshold)
        depths = () if self.levels == "all" else self.levels
        require(all(level >= 0 for level in depths), "levels", "all or from 0", self.levels)


@dataclasses.dataclass(frozen=True)
class FedDiscoConfig(Config):
    """FedDisco (ICML 2023): less weight for clients whose labels are far from uniform."""

    #: What discrepancy costs a client, beside its relative size.
    a: float = 0.5
    #: What every client gets, beside its relative size.
    b: float = 0.1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "a", "b")


@dataclasses.dataclass(frozen=True)
class FedCDAConfig(Config):
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

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "models", "batches")
        require_at_least(self, 0, "smoothness")
        require(0 <= self.warmup <= 1, "warmup", "from 0 to 1", self.warmup)

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` where the combinations to be tried are too many, or not all."""
        if self.selection != "newest" and config.availability.sampling == "poisson":
            raise ConfigError(
                "selection must be newest with availability.sampling=poisson, got "
                f"{self.selection!r}: combinations are tried of clients_per_round clients, and "
                "more can take part"
            )
        part = -(-config.clients_per_round // self.batches)
        if self.selection != "newest" and self.models**part > 2**16:
            raise ConfigError(
                f"batches: {self.models} models of {part} clients are {self.models**part:,} "
                f"combinations, and {2**16:,} can be tried; use more batches than {self.batches}, "
                "fewer models or fewer clients_per_round"
            )

    def rounds_matter(self) -> str | None:
        """Return why the number of rounds decides what a round does; None: it does not."""
        return "its warm-up is a share of all rounds" if self.warmup > 0 else None


@dataclasses.dataclass(frozen=True)
class FedDifRCConfig(Config):
    """FedDifRC (ICCV 2025): contrast with, and regression to, a diffusion model's features."""

    #: Weight of the text-driven contrast TDCL.
    lambda_tdcl: float = 1.0
    #: Weight of the noise-driven regression NDCR.
    lambda_ndcr: float = 1.0
    #: Temperature tau of TDCL.
    temperature: float = 0.04

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "lambda_tdcl", "lambda_ndcr")
        require_positive(self, "temperature")


@dataclasses.dataclass(frozen=True)
class FedNovaConfig(Config):
    """FedNova (NeurIPS 2020): updates divided by the clients' effective numbers of steps."""

    #: Weight of FedProx's term in the local objective.
    mu: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "mu")


@dataclasses.dataclass(frozen=True)
class FedDynConfig(Config):
    """FedDyn (ICLR 2021): local objectives shifted so that their optima agree."""

    #: Weight of |y - x|^2 / 2, and of the client's drift in its gradient.
    alpha: float = 0.01

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "alpha")


_ALGORITHMS = "semanticfl_jax.algorithms"
_SERVER = ("server_optimizer", "server_learning_rate", "server_momentum", "server_beta2")
_OWN_AVERAGE = "it corrects the average by the clients' accumulated drift itself"
_BY_AVERAGE = "its control variates assume that the model moves by the clients' average"
_SELECTED = "the model is the average of the models it selects"

# Each with its paper, what it does, and what it costs beyond FedAvg, whose clients keep nothing and
# send and receive one model a round. "1 model" is the size of one.
ALGORITHMS.register(
    "fedavg",
    f"{_ALGORITHMS}.fedavg:fedavg",
    about="AISTATS 2017: the average of the clients' models, by size",
)
ALGORITHMS.register(
    "fedprox",
    f"{_ALGORITHMS}.fedprox:fedprox",
    settings=FedProxConfig,
    about="MLSys 2020: clients' models are held near the received one",
)
ALGORITHMS.register(
    "scaffold",
    f"{_ALGORITHMS}.scaffold:scaffold",
    about="ICML 2020: control variates cancel the clients' drift. "
    "Keeps 1 model a client, sends 1 more up and down",
    server_step=_BY_AVERAGE,
    average=_BY_AVERAGE,
    sgd="its control variates are mean gradients worked out of SGD's steps",
    extra="the change of their control variates, which are mean gradients of their images",
    broadcast="the mean of all control variates",
    uniform=True,
)
ALGORITHMS.register(
    "moon",
    f"{_ALGORITHMS}.moon:moon",
    settings=MoonConfig,
    about="CVPR 2021: features agree with the received model's, not with the client's last. "
    "Keeps 1 model a client; 2 more forward passes a step",
)
ALGORITHMS.register(
    "fedrcl",
    f"{_ALGORITHMS}.fedrcl:fedrcl",
    settings=FedRCLConfig,
    about="CVPR 2024: relaxed supervised contrast at several depths; uniform weights",
    classes="it contrasts images of one class with those of others",
    uniform=True,
)
ALGORITHMS.register(
    "feddisco",
    f"{_ALGORITHMS}.feddisco:feddisco",
    about="ICML 2023: less weight for clients whose labels are far from uniform. "
    "Sends label counts, once",
    uses=("feddisco.a", "feddisco.b"),
    weights=("disco",),
    weights_reason="it is those weights",
    once="how many images of each class they have",
    classes="it weighs clients by how many images of each class they have",
)
ALGORITHMS.register(
    "fedcda",
    f"{_ALGORITHMS}.fedcda:fedcda",
    settings=FedCDAConfig,
    about="ICLR 2024: averages, of every client's last models, those that agree. "
    "Keeps `models` models a client, sends 1 number more up",
    server_step=_SELECTED,
    server_rate=_SELECTED,
    average=_SELECTED,
    weights=(),
    uniform=True,
    weights_reason="it averages all clients alike, not the participants",
    extra="their training loss, and models that the server keeps one by one",
)
ALGORITHMS.register(
    "feddifrc",
    f"{_ALGORITHMS}.feddifrc:feddifrc",
    settings=FedDifRCConfig,
    about="ICCV 2025: contrast with and regression to diffusion features, those of "
    "guidance.*. Sends the anchors, once",
    anchors=lambda settings: settings.lambda_tdcl + settings.lambda_ndcr > 0,
    classes="it contrasts features with those of every class",
)
ALGORITHMS.register(
    "fednova",
    f"{_ALGORITHMS}.fednova:fednova",
    settings=FedNovaConfig,
    about="NeurIPS 2020: updates divided by effective steps. Sends 1 number more up",
    server_step="it scales the step by the clients' effective numbers of steps itself",
    average="its step is the mean of the clients' steps, times the mean of how many they are",
    sgd="its effective numbers of steps are those of SGD",
    extra="their effective numbers of steps, which tell how many images they have",
)
ALGORITHMS.register(
    "feddyn",
    f"{_ALGORITHMS}.feddyn:feddyn",
    settings=FedDynConfig,
    about="ICLR 2021: local objectives shifted so that their optima agree. Keeps 1 model a client",
    server_step=_OWN_AVERAGE,
    server_rate=_OWN_AVERAGE,
    average=_OWN_AVERAGE,
    sgd="its fixed point assumes steps along the gradient of the local objective",
    extra="their update as it was trained, for the drift that the server keeps",
    uniform=True,
)
ALGORITHMS.register(
    "fedavgm",
    f"{_ALGORITHMS}.fedavg:fedavg",
    about="arXiv 1909.06335: momentum at the server",
    uses=_SERVER[1:3],
    server_optimizer="momentum",
)
ALGORITHMS.register(
    "fedadam",
    f"{_ALGORITHMS}.fedavg:fedavg",
    about="ICLR 2021: Adam at the server",
    uses=(*_SERVER[1:], "server_tau"),
    server_optimizer="adam",
)
ALGORITHMS.register(
    "fedyogi",
    f"{_ALGORITHMS}.fedavg:fedavg",
    about="ICLR 2021: Yogi at the server",
    uses=(*_SERVER[1:], "server_tau"),
    server_optimizer="yogi",
)
ALGORITHMS.register(
    "fedadagrad",
    f"{_ALGORITHMS}.fedavg:fedavg",
    about="ICLR 2021: Adagrad at the server",
    uses=(*_SERVER[1:3], "server_tau"),
    server_optimizer="adagrad",
)
