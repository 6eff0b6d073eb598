"""Configuration of asynchronous rounds: the server steps when enough clients have reported.

--config.asynchronous.enabled=true --config.algorithm.weights=uniform
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from semanticfl_jax.config.fields import Config, changed_fields, require, require_at_least
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import AGGREGATORS

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class AsynchronousConfig(Config):
    """Clients that train at their own pace, from the model that the server had as they began."""

    #: Whether a round is `clients_per_round` reports, whenever they began (FedBuff, AISTATS 2022).
    enabled: bool = False
    #: Clients that train at any time; 0: twice clients_per_round.
    concurrency: int = 0
    #: Standard deviation of the logarithm of clients' speeds; 0: all are as fast.
    speed_spread: float = 1.0
    #: Server steps after which a report is of no use. The server keeps so many models.
    most_stale: int = 10
    #: Power p of (1 + staleness)^-p, which a client's weight is multiplied by.
    power: float = 0.5

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "concurrency", "speed_spread", "power")
        require_at_least(self, 1, "most_stale")

    @property
    def versions(self) -> int:
        """Models that the server keeps, the newest included; 0 where rounds are synchronous."""
        return self.most_stale + 1 if self.enabled else 0

    def clients_at_a_time(self, config: ExperimentConfig) -> int:
        """Return how many clients train at any time."""
        return self.concurrency or 2 * config.clients_per_round

    def unused(self, aggregator: str) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason.

        `aggregator` is `aggregation.aggregator`.
        """
        changed = changed_fields(self)
        if not self.enabled:
            return dict.fromkeys(changed, "asynchronous.enabled is false")
        if "power" in changed and not AGGREGATORS[aggregator].traits.weighted:
            return {"power": f"to aggregation.aggregator={aggregator} all clients count alike"}
        return {}

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for what needs a cohort that begins together."""
        if not self.enabled:
            return
        least = self.clients_at_a_time(config) + config.clients_per_round
        require(
            config.num_clients >= least,
            "num_clients",
            "at least asynchronous.concurrency and clients_per_round together, since nobody trains "
            f"twice for one step ({least})",
            config.num_clients,
        )
        traits, name = config.algorithm.entry.traits, config.algorithm.name
        for told in (traits.extra, traits.broadcast, traits.average):
            if told:
                raise ConfigError(
                    f"algorithm.name={name} cannot be used with asynchronous.enabled: what it "
                    f"sends besides the model would be of another round ({told})"
                )
        for problem, field, why in (
            (config.availability.sampling != "uniform", "availability.sampling", "a clock decides"),
            (config.availability.dropout > 0, "availability.dropout", "who reports, reports"),
            (config.availability.straggler_share > 0, "availability.straggler_share", "speeds do"),
            (config.privacy.enabled, "privacy.name", "no accountant covers who reports when"),
            (
                config.on_divergence == "skip_client",
                "on_divergence=skip_client",
                "weights are not those of a mean, which who is left out would lower",
            ),
        ):
            if problem:
                raise ConfigError(f"{field} cannot be set with asynchronous.enabled: {why}")
