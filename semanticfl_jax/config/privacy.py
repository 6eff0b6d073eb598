"""Configuration of differential privacy: where noise is added, how much, and what it may cost.

    --config.privacy.name=central --config.privacy.target_epsilon=2 --config.privacy.delta=1e-6

The unit that is protected is a client, with all its images. `privacy/accounting.py` says which
bound belongs to which way of sampling clients.
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
from semanticfl_jax.registry import MODELS, PRIVACY, Entry

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig

#: Below it a privacy loss distribution takes gigabytes, and a guarantee means nothing.
LEAST_NOISE = 0.2

#: Mechanisms whose noise the server adds.
AT_SERVER = ("central", "dp_ftrl")


@dataclasses.dataclass(frozen=True)
class CentralConfig(Config):
    """The server clips every client's update, and adds noise to their sum."""

    #: L2 norm C that every update is cut to; with `adaptive`, the one to begin with.
    clip: float = 1.0
    #: Whether C follows a quantile of the clients' norms (Andrew et al., NeurIPS 2021).
    adaptive: bool = False
    #: Share gamma of the updates that C should leave as they are.
    quantile: float = 0.5
    #: Rate eta_C at which C follows.
    clip_rate: float = 0.2
    #: Standard deviation of the noise on the count of updates that were not cut; 0: a twentieth of
    #: clients_per_round (or noise_cohort), as its authors advise, and for small cohorts the noise
    #: multiplier at least (ours), so that the update's noise grows by a sixth at most.
    count_noise: float = 0.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "clip", "clip_rate")
        require_at_least(self, 0, "count_noise")
        require(0 < self.quantile < 1, "quantile", "above 0 and below 1", self.quantile)


@dataclasses.dataclass(frozen=True)
class LocalConfig(Config):
    """Every client clips its update and adds noise itself, before it sends it."""

    #: L2 norm C that every update is cut to.
    clip: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "clip")


@dataclasses.dataclass(frozen=True)
class DPFTRLConfig(Config):
    """The server clips every client's update, and adds noise that later noise partly takes back."""

    #: L2 norm C that every update is cut to.
    clip: float = 1.0
    #: Rounds b over which noise hangs together, at most num_clients // clients_per_round (or
    #: population // noise_cohort), the rounds between two turns of a client; 0: as many, up to 16.
    #: The server keeps b - 1 models.
    bands: int = 0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "clip")
        require_at_least(self, 0, "bands")

    def bands_of(self, config: ExperimentConfig) -> int:
        """Return b, of the rounds of a run at most."""
        return self.bands or min(_most_bands(config), 16)

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` where a client's turns could come too soon after one another."""
        sampling = config.availability.sampling
        if sampling not in ("round_robin", "fixed_order"):
            raise ConfigError(
                "availability.sampling must be round_robin or fixed_order with privacy.name="
                f"dp_ftrl: clients must take turns, got {sampling!r}"
            )
        most = _most_bands(config)
        require(
            self.bands <= most,
            "privacy.dp_ftrl.bands",
            f"at most num_clients // clients_per_round (or population // noise_cohort), and rounds "
            f"({most})",
            self.bands,
        )


def _most_bands(config: ExperimentConfig) -> int:
    """Return the rounds between two turns of a client, of those of the run."""
    clients, cohort = config.privacy.federation(config)
    return min(clients // cohort, config.rounds)


PRIVACY.register("none", "semanticfl_jax.privacy.mechanism:none", about="No guarantee")
PRIVACY.register(
    "central",
    "semanticfl_jax.privacy.central:central",
    settings=CentralConfig,
    about="McMahan et al., ICLR 2018 (DP-FedAvg): the server clips every client's update and adds "
    "Gaussian noise to their sum; it must be trusted, the model need not be",
)
PRIVACY.register(
    "dp_ftrl",
    "semanticfl_jax.privacy.dp_ftrl:dp_ftrl",
    settings=DPFTRLConfig,
    about="Kairouz et al., ICML 2021; Choquette-Choo et al., NeurIPS 2023: as central, with noise "
    "that later noise partly takes back, for clients that take turns. Keeps `bands` - 1 models at "
    "the server",
)
PRIVACY.register(
    "local",
    "semanticfl_jax.privacy.local:local",
    settings=LocalConfig,
    about="Duchi et al., FOCS 2013; with Gaussian noise: every client clips its update and adds "
    "the noise itself; nobody must be trusted, and far more noise is needed",
)


@dataclasses.dataclass(frozen=True)
class PrivacyConfig(Choosing):
    """Differential privacy of clients: (epsilon, delta), by clipping and Gaussian noise."""

    registries: ClassVar = {"name": PRIVACY}

    name: Annotated[str, PRIVACY] = "none"
    #: Standard deviation of the noise, of the sum (central) or of every update (local), divided by
    #: the clipping norm. None: what `target_epsilon` asks for over all `rounds`.
    noise_multiplier: float | None = None
    #: The budget. Beside `noise_multiplier` it stops the run before the round that would exceed it.
    target_epsilon: float | None = None
    #: Well below one in num_clients, or `population`.
    delta: float = 1e-6
    #: Clients of the larger federation that the run stands for, whose epsilon is told; set together
    #: with noise_cohort. The run itself has no such guarantee. 0: num_clients.
    population: int = 0
    #: Clients in a round of that federation: the mean has the noise that the mean of so many
    #: updates would have. 0: clients_per_round.
    noise_cohort: int = 0
    #: Settings of the mechanism.
    settings: Any = None

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        noise, budget = self.noise_multiplier, self.target_epsilon
        allowed = f"at least {LEAST_NOISE}, or none: less guarantees nothing"
        require(noise is None or noise >= LEAST_NOISE, "noise_multiplier", allowed, noise)
        require(budget is None or budget > 0, "target_epsilon", "greater than 0, or none", budget)
        require(0 < self.delta < 1, "delta", "above 0 and below 1", self.delta)
        require_at_least(self, 0, "population", "noise_cohort")
        require(
            bool(self.population) == bool(self.noise_cohort),
            "noise_cohort",
            "set together with population, or neither",
            self.noise_cohort,
        )
        require(
            not (self.enabled and self.population) or self.name in AT_SERVER,
            "population",
            f"0 with name={self.name}: what a client's own noise costs does not depend on others",
            self.population,
        )
        require(
            not self.enabled or (noise or budget) is not None,
            "noise_multiplier",
            f"a number with name={self.name}, or target_epsilon, which computes it",
            None,
        )

    @property
    def enabled(self) -> bool:
        """Whether there is a guarantee."""
        return self.name != "none"

    @property
    def entry(self) -> Entry:
        """The registry's entry of the mechanism."""
        return PRIVACY[self.name]

    def federation(self, config: ExperimentConfig) -> tuple[int, int]:
        """Return the clients, and those of a round, whose privacy is told."""
        if self.population:
            return self.population, self.noise_cohort
        return config.num_clients, config.clients_per_round

    def unused(self) -> dict[str, str]:
        """Return the fields that are set and have no effect, each with the reason."""
        if not self.enabled:
            return dict.fromkeys(changed_fields(self), "privacy.name is none")
        if self.name != "central" or self.settings.adaptive:
            return {}
        names = [name for name in changed_fields(self.settings) if name != "clip"]
        return {f"central.{name}": "privacy.central.adaptive is false" for name in names}

    def rounds_matter(self) -> str | None:
        """Return why the number of rounds decides what a round does; None: it does not."""
        if self.enabled and self.noise_multiplier is None:
            return "privacy.target_epsilon computes the noise of all rounds"
        if self.name == "dp_ftrl":
            return "the noise of privacy.name=dp_ftrl is shaped for so many"
        return None

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for what has no guarantee, or none that could be told."""
        if not self.enabled:
            return
        mechanism = f"privacy.name={self.name}"
        clients, cohort = self.federation(config)
        counted = "population" if self.population else "num_clients"
        require(
            config.clients_per_round <= cohort <= clients,
            "privacy.noise_cohort",
            f"from clients_per_round ({config.clients_per_round}) to population ({clients})",
            cohort,
        )
        require(
            self.delta * clients <= 1,
            "privacy.delta",
            f"at most one in {counted} ({clients}): with more, one client's data could be "
            "published whole",
            self.delta,
        )
        if MODELS[config.model.name].uses.count("norm") and config.model.norm == "batch":
            raise ConfigError(
                f"model.norm must be group with {mechanism}, got 'batch': running variances would "
                "take most of the clipping norm, and noise would make some of them negative"
            )
        if config.algorithm.entry.traits.silent:
            raise ConfigError(
                f"{mechanism} cannot be used with algorithm.name={config.algorithm.name}: its "
                "clients send nothing, so that nothing has to be protected"
            )
        extra = config.algorithm.entry.traits.extra
        if extra:
            raise ConfigError(
                f"algorithm.name={config.algorithm.name} cannot be used with {mechanism}: its "
                f"clients send {extra}, which the mechanism does not see"
            )
        if config.algorithm.uses_label_counts:
            raise ConfigError(
                f"the weights disco cannot be used with {mechanism}: clients send their label "
                "counts without noise"
            )
        require(
            config.private,
            "guidance.anchor_source",
            f"another than oracle with {mechanism}: anchors of the clients' own images reach "
            "every client without noise",
            config.guidance.anchor_source,
        )
        student = config.guidance.student
        require(
            not (config.guidance.uses_student and student.control == "permuted"),
            "guidance.student.control",
            f"another than permuted with {mechanism}: clients are given targets of other clients' "
            "images without noise",
            student.control,
        )
        require(
            config.availability.sampling != "size_weighted",
            "availability.sampling",
            f"uniform, poisson, round_robin or fixed_order with {mechanism}: who is sampled by "
            "size tells of sizes, and no accountant covers it",
            config.availability.sampling,
        )
        require(
            config.algorithm.weights in ("auto", "uniform"),
            "algorithm.weights",
            f"auto or uniform with {mechanism}: weights by size tell of sizes, and noise hides one "
            "client's part of a sum only if all have the same weight",
            config.algorithm.weights,
        )
        require(
            self.name not in AT_SERVER or config.aggregation.aggregator == "mean",
            "aggregation.aggregator",
            f"mean with {mechanism}: the noise is that of a sum",
            config.aggregation.aggregator,
        )
        require(
            self.name not in AT_SERVER or not config.attack.entry.traits.colludes,
            "attack.name",
            f"one whose attackers do not collude with {mechanism}: they see other clients' updates "
            "without noise, and one client's data change what each of them sends",
            config.attack.name,
        )
        require(
            self.name != "local" or config.on_divergence != "skip_client",
            "on_divergence",
            f"warn or stop with {mechanism}: whether a client is left out tells of its data, and "
            "costs no epsilon",
            config.on_divergence,
        )
        check = getattr(self.settings, "check_experiment", None)
        if check is not None:
            check(config)
