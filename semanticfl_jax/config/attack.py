"""Configuration of an attack: which clients do not do as they should, and what they do.

--config.attack.name=sign_flip --config.attack.share=0.2
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from semanticfl_jax.config.fields import (
    Choosing,
    Config,
    changed_fields,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import ATTACKS, Entry

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class SignFlipConfig(Config):
    """Updates are sent backwards."""

    #: What the update is multiplied by, besides -1.
    scale: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "scale")


@dataclasses.dataclass(frozen=True)
class GaussianConfig(Config):
    """Noise is sent."""

    #: Standard deviation of every number.
    spread: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "spread")


@dataclasses.dataclass(frozen=True)
class FreeRiderConfig(Config):
    """Nothing is learned, and the received model is sent back."""

    #: Standard deviation of the noise on it.
    spread: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "spread")


@dataclasses.dataclass(frozen=True)
class IPMConfig(Config):
    """The honest clients' mean is sent backwards."""

    #: Its authors have 0.5 against robust aggregators, and more against the mean.
    scale: float = 0.5

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "scale")


@dataclasses.dataclass(frozen=True)
class ALIEConfig(Config):
    """What lies within the spread of the honest updates is sent."""

    #: Standard deviations z from their mean; 0: as many as its authors' formula allows.
    scale: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "scale")


@dataclasses.dataclass(frozen=True)
class BackdoorConfig(Config):
    """Images with a trigger are to be taken for one class."""

    #: Class that the trigger stands for.
    target: int = 0
    #: Side in pixels of the white square in the lower right corner.
    size: int = 3
    #: Share of an attacker's images that get it.
    poisoned: float = 0.5
    #: Of the update; num_clients / attackers replaces the whole model.
    scale: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "target")
        require_at_least(self, 1, "size")
        require_positive(self, "scale")
        require(0 < self.poisoned <= 1, "poisoned", "above 0 and at most 1", self.poisoned)


_HERE = "semanticfl_jax.attacks"

ATTACKS.register("none", f"{_HERE}.none:none", about="Every client does as it should")
ATTACKS.register(
    "label_flip",
    f"{_HERE}.label_flip:label_flip",
    about="Tolpegin et al., ESORICS 2020: trains on class K - 1 - y in place of y",
    classes="it changes the class of images",
)
ATTACKS.register(
    "sign_flip",
    f"{_HERE}.sign_flip:sign_flip",
    settings=SignFlipConfig,
    about="Li et al., AAAI 2019: sends its update backwards",
    forges=True,
)
ATTACKS.register(
    "gaussian",
    f"{_HERE}.gaussian:gaussian",
    settings=GaussianConfig,
    about="Blanchard et al., NeurIPS 2017: sends noise",
    forges=True,
)
ATTACKS.register(
    "alie",
    f"{_HERE}.alie:alie",
    settings=ALIEConfig,
    about="Baruch et al., NeurIPS 2019: stays within the spread of the honest updates; needs all "
    "updates at once",
    forges=True,
    colludes=True,
)
ATTACKS.register(
    "ipm",
    f"{_HERE}.ipm:ipm",
    settings=IPMConfig,
    about="Xie et al., UAI 2019: sends the honest clients' mean backwards; needs all updates at "
    "once",
    forges=True,
    colludes=True,
)
ATTACKS.register(
    "backdoor",
    f"{_HERE}.backdoor:backdoor",
    settings=BackdoorConfig,
    about="Gu et al., 2017; Bagdasaryan et al., AISTATS 2020: teaches a trigger; its success is "
    "measured",
    classes="it gives a class to images with a trigger",
    images="its trigger is a white square",
    forges=lambda settings: settings.scale != 1,
)
ATTACKS.register(
    "free_rider",
    f"{_HERE}.free_rider:free_rider",
    settings=FreeRiderConfig,
    about="Fraboni et al., AISTATS 2021: sends the received model back",
    forges=True,
)


@dataclasses.dataclass(frozen=True)
class AttackConfig(Choosing):
    """Clients that do not do as they should; who they are is drawn by the seed."""

    registries: ClassVar = {"name": ATTACKS}

    name: Annotated[str, ATTACKS] = "none"
    #: Share of the clients that attack.
    share: float = 0.2
    #: Settings of the attack.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 <= self.share <= 1, "share", "from 0 to 1", self.share)

    @property
    def entry(self) -> Entry:
        """The registry's entry of the attack."""
        return ATTACKS[self.name]

    def count(self, num_clients: int) -> int:
        """Return how many of that many clients attack."""
        return round(self.share * num_clients)

    def unused(self) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason."""
        if self.name != "none":
            return {}
        return dict.fromkeys(changed_fields(self), "attack.name is none")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for an attack that would not be one."""
        require(
            self.name == "none" or self.share == 0 or self.count(config.num_clients) > 0,
            "attack.share",
            f"0, or large enough that one of {config.num_clients} clients attacks",
            self.share,
        )
        traits, extra = self.entry.traits, config.algorithm.entry.traits.extra
        forges = traits.forges(self.settings) if callable(traits.forges) else traits.forges
        if forges and config.algorithm.entry.traits.silent:
            raise ConfigError(
                f"attack.name={self.name} cannot be used with algorithm.name="
                f"{config.algorithm.name}, whose clients send nothing that could be forged"
            )
        if forges and extra:
            raise ConfigError(
                f"attack.name={self.name} cannot be used with algorithm.name="
                f"{config.algorithm.name}: clients also send {extra}, which would stay honest"
            )
        if traits.classes and not config.has_classes:
            raise ConfigError(
                f"attack.name={self.name} needs one class an image, and task is {config.task}: "
                f"{traits.classes}"
            )
