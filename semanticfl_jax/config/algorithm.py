"""Configuration of the federated algorithm: its name, and a group of settings for each.

    --config.algorithm.name=moon --config.algorithm.moon.mu=5

Three choices are separate: the local objective (`name`), the aggregation weights (`weights`) and
the server's optimiser (`server_optimizer`). The last two are `auto` by default: what the paper of
the algorithm does. Combinations that contradict an algorithm are refused with the reason.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from semanticfl_jax.config.fields import (
    Choosing,
    Config,
    changed_fields,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import ALGORITHMS, SERVER_OPTIMIZERS, Entry

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
    temperature: float = 0.05
    #: Cosine from which a pair of one class counts as too similar.
    threshold: float = 0.7
    weight: float = 1.0
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

    #: What discrepancy costs, and what every client gets, beside its relative size.
    a: float = 0.5
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

    #: Weight of the text-driven contrast TDCL, and of the noise-driven regression NDCR.
    lambda_tdcl: float = 1.0
    lambda_ndcr: float = 1.0
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
ALGORITHMS.register(
    "semanticfl",
    f"{_ALGORITHMS}.fedavg:fedavg",
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
    #: Weights of the clients' updates; auto: by size, uniform in SCAFFOLD, FedRCL and FedDyn,
    #: FedDisco's own.
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
