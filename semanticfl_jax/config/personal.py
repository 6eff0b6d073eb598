"""Configuration of algorithms that leave every client with a model of its own.

What a client would use itself is tested on images of its own: `client_test.share`.
"""

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
class FedBNConfig(Config):
    """FedBN (ICLR 2021): normalisation layers stay with the clients."""

    #: Texts in the names of the layers that normalise, in any case.
    names: tuple[str, ...] = ("norm",)


@dataclasses.dataclass(frozen=True)
class FedPerConfig(Config):
    """FedPer (arXiv 1912.00818): the last layers stay with the clients."""

    #: Names of layers; the classifier is found by its width. None: FedAvg.
    layers: Literal["classifier"] | tuple[str, ...] = "classifier"


@dataclasses.dataclass(frozen=True)
class FedRepConfig(Config):
    """FedRep (ICML 2021): clients train their own head, then the common representation."""

    #: As in FedPer.
    layers: Literal["classifier"] | tuple[str, ...] = "classifier"
    #: The last epochs of a round, in which the representation is trained; the head is in those
    #: before. Its authors: 1 of 11.
    body_epochs: int = 1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "body_epochs")
        require(len(self.layers) > 0, "layers", "one at least: they are the head", self.layers)

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` if no epoch is left to train the head in."""
        if self.body_epochs >= config.local_epochs:
            raise ConfigError(
                f"body_epochs must be below local_epochs ({config.local_epochs}), so that the head "
                f"is trained, too; got {self.body_epochs}"
            )


@dataclasses.dataclass(frozen=True)
class DittoConfig(Config):
    """Ditto (ICML 2021): a model of the client's own, held near the common one."""

    #: Weight of |v - x|^2 / 2, tuned by its authors; 0 is local training.
    weight: float = 0.1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "weight")


@dataclasses.dataclass(frozen=True)
class PFedMeConfig(Config):
    """pFedMe (NeurIPS 2020): common training by Moreau envelopes of the clients' losses."""

    #: Weight of |theta - w|^2 / 2.
    weight: float = 15.0
    #: Steps that solve for theta on every batch.
    inner_steps: int = 5
    #: Rate of these steps.
    inner_rate: float = 0.01

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "weight", "inner_rate")
        require_at_least(self, 1, "inner_steps")


@dataclasses.dataclass(frozen=True)
class APFLConfig(Config):
    """APFL (arXiv 2003.13461): a mixture of a local and the common model."""

    #: Share of the local model at first; 0 is FedAvg.
    alpha: float = 0.5
    #: Whether every client learns its share.
    adaptive: bool = True

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 <= self.alpha <= 1, "alpha", "from 0 to 1", self.alpha)


@dataclasses.dataclass(frozen=True)
class FedALAConfig(Config):
    """FedALA (AAAI 2023): each client learns how much of the common model it takes over."""

    #: As in FedPer: layers that are mixed; all others are taken over.
    layers: Literal["classifier"] | tuple[str, ...] = "classifier"
    #: Rate of the mixture's weights.
    rate: float = 1.0
    #: Share of the first epoch's batches that the mixture's weights learn from.
    share: float = 0.8

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "rate")
        require(0 < self.share <= 1, "share", "above 0 and at most 1", self.share)
        require(len(self.layers) > 0, "layers", "one at least: they are mixed", self.layers)


@dataclasses.dataclass(frozen=True)
class IFCAConfig(Config):
    """IFCA (NeurIPS 2020): several common models, of which clients train what suits them."""

    #: How many.
    models: int = 2
    #: Noise that sets their initial parameters apart, in standard deviations of each array; little
    #: of it where they begin from trained weights.
    spread: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 2, "models")
        require_positive(self, "spread")


_ALGORITHMS = "semanticfl_jax.algorithms"
_BY_CHOICE = "each model moves by the mean of those who chose it"
_NOTHING_SENT = "clients send nothing, so that the server has nothing to step along"

ALGORITHMS.register(
    "local",
    f"{_ALGORITHMS}.local:local",
    about="Every client trains alone: the baseline of personal models. Keeps 1 model a client, "
    "sends nothing",
    server_step=_NOTHING_SENT,
    server_rate=_NOTHING_SENT,
    silent=True,
    weights=(),
    weights_reason="nothing is averaged",
)
ALGORITHMS.register(
    "fedbn",
    f"{_ALGORITHMS}.fedbn:fedbn",
    settings=FedBNConfig,
    about="ICLR 2021: normalisation layers stay with the clients. Keeps those layers",
)
ALGORITHMS.register(
    "fedper",
    f"{_ALGORITHMS}.fedper:fedper",
    settings=FedPerConfig,
    about="arXiv 1912.00818: the last layers stay with the clients. Keeps those layers",
)
ALGORITHMS.register(
    "fedrep",
    f"{_ALGORITHMS}.fedrep:fedrep",
    settings=FedRepConfig,
    about="ICML 2021: clients train their own head, then the common representation. Keeps the head",
)
ALGORITHMS.register(
    "ditto",
    f"{_ALGORITHMS}.ditto:ditto",
    settings=DittoConfig,
    about="ICML 2021: a model of the client's own beside the common one, held near it. "
    "Keeps 1 model a client; 1 more forward and backward pass a step",
)
ALGORITHMS.register(
    "pfedme",
    f"{_ALGORITHMS}.pfedme:pfedme",
    settings=PFedMeConfig,
    about="NeurIPS 2020: common training by Moreau envelopes of the clients' losses. "
    "Keeps 1 model a client; `inner_steps` passes a step",
    uniform=True,
)
ALGORITHMS.register(
    "apfl",
    f"{_ALGORITHMS}.apfl:apfl",
    settings=APFLConfig,
    about="arXiv 2003.13461: a mixture of a local and the common model. "
    "Keeps 1 model and 1 number a client; 1 more forward and backward pass a step",
)
ALGORITHMS.register(
    "fedala",
    f"{_ALGORITHMS}.fedala:fedala",
    settings=FedALAConfig,
    about="AAAI 2023: each client learns how much of the common model it takes over. Keeps the "
    "mixed layers twice; 1 more forward and backward pass for `share` of an epoch",
)
ALGORITHMS.register(
    "ifca",
    f"{_ALGORITHMS}.ifca:ifca",
    settings=IFCAConfig,
    about="NeurIPS 2020: several common models, each client trains the one of least loss. Keeps 1 "
    "number a client, sends `models` models down; as many forward passes over an epoch",
    server_step=_BY_CHOICE,
    server_rate=_BY_CHOICE,
    average=_BY_CHOICE,
    extra="which of the models they chose",
    broadcast="the other models",
)
