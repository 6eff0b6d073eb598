"""Configuration of algorithms that change the local objective, its solver, or the server's step."""

from __future__ import annotations

import dataclasses

from semanticfl_jax.config.fields import Config, require_at_least, require_positive
from semanticfl_jax.registry import ALGORITHMS


@dataclasses.dataclass(frozen=True)
class QFFLConfig(Config):
    """q-FFL (ICLR 2020): clients whose loss is high count more."""

    #: How much more; 0 is FedAvg with uniform weights.
    q: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "q")


@dataclasses.dataclass(frozen=True)
class FedExPConfig(Config):
    """FedExP (ICLR 2023): the server's step is extrapolated as far as updates disagree."""

    #: Added to the squared norm of the average update.
    epsilon: float = 1e-3

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "epsilon")


@dataclasses.dataclass(frozen=True)
class FedSAMConfig(Config):
    """FedSAM (ICML 2022): local steps along the gradient at the worst point nearby."""

    #: Its distance; 0 is FedAvg.
    rho: float = 0.05

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "rho")


@dataclasses.dataclass(frozen=True)
class FedNTDConfig(Config):
    """FedNTD (NeurIPS 2022): the received model's opinion of the wrong classes is kept."""

    #: Weight of the distillation; 0 is FedAvg.
    beta: float = 1.0
    #: Temperature tau of both softmaxes.
    temperature: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "beta")
        require_positive(self, "temperature")


@dataclasses.dataclass(frozen=True)
class FedLCConfig(Config):
    """FedLC (ICML 2022): logits of a client's rare classes need a larger margin."""

    #: Of the margins tau n_y^(-1/4); 0 is FedAvg.
    tau: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "tau")


@dataclasses.dataclass(frozen=True)
class FedETFConfig(Config):
    """FedETF (ICCV 2023): the classifier is a fixed simplex, the same for all clients."""

    #: Name of the layer that it takes the place of; the classifier is found by its width.
    layer: str = "classifier"
    #: What cosines with the simplex are multiplied by to make logits.
    scale: float = 16.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "scale")


_ALGORITHMS = "semanticfl_jax.algorithms"

ALGORITHMS.register(
    "qffl",
    f"{_ALGORITHMS}.qffl:qffl",
    settings=QFFLConfig,
    about="ICLR 2020: clients whose loss is high count more. Sends 1 number more up; 1 more "
    "forward pass a step",
    server_step="it scales the step by the clients' losses itself",
    server_rate="it scales the step by the clients' losses itself",
    average="its step is a sum over clients, divided by another one",
    weights=("uniform",),
    weights_reason="its weights follow from the losses",
    extra="what their loss and the length of their update make of the length of the step",
    uniform=True,
)
ALGORITHMS.register(
    "fedexp",
    f"{_ALGORITHMS}.fedexp:fedexp",
    settings=FedExPConfig,
    about="ICLR 2023: the server's step is extrapolated as far as updates disagree. Sends 1 number "
    "more up",
    server_step="it chooses the length of the step itself",
    server_rate="it chooses the length of the step itself",
    average="the length of its step is what the mean of the updates leaves of their lengths",
    extra="the length of their update",
)
ALGORITHMS.register(
    "fedsam",
    f"{_ALGORITHMS}.fedsam:fedsam",
    settings=FedSAMConfig,
    about="ICML 2022: local steps along the gradient at the worst point nearby. "
    "1 more forward and backward pass a step",
)
ALGORITHMS.register(
    "fedntd",
    f"{_ALGORITHMS}.fedntd:fedntd",
    settings=FedNTDConfig,
    about="NeurIPS 2022: the received model's opinion of the wrong classes is kept. "
    "1 more forward pass a step",
    classes="it distils the classes that an image is not of",
)
ALGORITHMS.register(
    "fedlc",
    f"{_ALGORITHMS}.fedlc:fedlc",
    settings=FedLCConfig,
    about="ICML 2022: logits of a client's rare classes need a larger margin",
    classes="its margins go by how many images of each class a client has",
)
ALGORITHMS.register(
    "fedetf",
    f"{_ALGORITHMS}.fedetf:fedetf",
    settings=FedETFConfig,
    about="ICCV 2023: the classifier is a fixed simplex, the same for all clients, and is not sent",
    classes="its simplex has a corner for each class",
)
