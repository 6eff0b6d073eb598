"""Settings of what makes updates smaller, or hides them in a sum."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from semanticfl_jax.config.fields import Config, require, require_at_least, require_positive
from semanticfl_jax.errors import ConfigError

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class SparseConfig(Config):
    """Some numbers of an update travel."""

    #: Share of them.
    share: float = 0.01
    #: Whether what is left out is added to the client's next update.
    feedback: bool = True

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(0 < self.share <= 1, "share", "above 0 and at most 1", self.share)


@dataclasses.dataclass(frozen=True)
class QSGDConfig(Config):
    """Numbers are levels of the update's norm."""

    #: Levels s between 0 and the norm.
    levels: int = 15

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "levels")


@dataclasses.dataclass(frozen=True)
class QuantizeConfig(Config):
    """Numbers have few bits."""

    #: Bits of a number, from 1 to 8.
    bits: int = 8

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(1 <= self.bits <= 8, "bits", "from 1 to 8", self.bits)


@dataclasses.dataclass(frozen=True)
class PowerSGDConfig(Config):
    """Matrices are products of narrow ones."""

    #: Columns of the narrow matrices.
    rank: int = 2

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "rank")


@dataclasses.dataclass(frozen=True)
class CountSketchConfig(Config):
    """Tables of a few rows travel."""

    #: Numbers of the table, as a share of those of an update.
    share: float = 0.1
    #: Rows, whose median is taken; of an even number, the mean of two.
    rows: int = 5
    #: Share of the update's numbers that the server reads from the sum.
    kept: float = 0.01

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "rows")
        for name in ("share", "kept"):
            value = getattr(self, name)
            require(0 < value <= 1, name, "above 0 and at most 1", value)


@dataclasses.dataclass(frozen=True)
class MajoritySignConfig(Config):
    """Signs are voted for."""

    #: How far every parameter moves in a round; `algorithm.server_learning_rate` scales it.
    step: float = 0.001

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "step")


@dataclasses.dataclass(frozen=True)
class SecureConfig(Config):
    """Updates are hidden by masks that cancel in their sum."""

    #: Largest number of an update of parameters; larger ones are cut to it. Running statistics
    #: have a bound of their own, 4096.
    bound: float = 1.0
    #: Binary places of the fixed-point numbers.
    fraction_bits: int = 24
    #: Whether masks are drawn; without them the sum is the same, bit for bit, and faster.
    masks: bool = True

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "bound")
        require_at_least(self, 1, "fraction_bits")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` where a sum could leave the ring of 32 bits."""
        clients = config.num_clients
        fit = [bits for bits in range(1, 32) if self._largest(bits, clients) < 2**31]
        most = max(fit, default=0)
        require(
            self.fraction_bits in fit,
            "fraction_bits",
            f"such that no sum leaves 32 bits: with bound {self.bound:g} at most {most}",
            self.fraction_bits,
        )
        if self.masks and config.on_divergence == "skip_client":
            raise ConfigError(
                "masks cannot be used with on_divergence=skip_client: the masks of a client that "
                "is left out after it trained would stay in the sum; choose warn or stop, or "
                "aggregation.secure.masks=false, which gives the same sum"
            )
        noise = config.privacy.noise_multiplier
        if config.privacy.name == "local" and noise is not None:
            self.check_noise(config.privacy.settings.clip, noise)

    def check_noise(self, clip: float, noise: float) -> None:
        """Raise `ConfigError` if clients' own noise would be cut, and updates with it.

        Args:
          clip: the norm C that updates are cut to before.
          noise: the multiplier z; five standard deviations z C should be left (ours).
        """
        require(
            self.bound >= clip * (1 + 5 * noise),
            "bound",
            f"at least {clip * (1 + 5 * noise):g} with privacy.name=local, whose noise has a "
            f"standard deviation of {clip * noise:.3g} in every number: where it is cut, so is the "
            "update under it",
            self.bound,
        )

    def _largest(self, bits: int, clients: int) -> float:
        """Return what a sum can come to; weights may sum to a little more than one."""
        return 1.001 * self.bound * 2**bits + clients
