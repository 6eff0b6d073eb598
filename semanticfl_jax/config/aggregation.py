"""Configuration of what happens to updates between clients and server."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from semanticfl_jax.config.compression import (
    CountSketchConfig,
    MajoritySignConfig,
    PowerSGDConfig,
    QSGDConfig,
    QuantizeConfig,
    SecureConfig,
    SparseConfig,
)
from semanticfl_jax.config.fields import (
    Choosing,
    Config,
    require,
    require_at_least,
    require_positive,
)
from semanticfl_jax.errors import ConfigError
from semanticfl_jax.registry import AGGREGATORS, TRANSFORMS

if TYPE_CHECKING:
    from semanticfl_jax.config.experiment import ExperimentConfig


@dataclasses.dataclass(frozen=True)
class ClipConfig(Config):
    """Updates are scaled down to a norm."""

    #: L2 norm of the whole update, batch statistics included, that is left as it is.
    max_norm: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "max_norm")


def _require_cohort(
    config: ExperimentConfig, attackers: int, times: int, more: int, aggregator: str
) -> None:
    """Raise `ConfigError` unless a round has `times` f + `more` clients."""
    least = times * attackers + more
    require(
        config.clients_per_round >= least,
        "attackers",
        f"such that clients_per_round ({config.clients_per_round}) is at least {times} times it "
        f"and {more}, as {aggregator} needs",
        attackers,
    )


@dataclasses.dataclass(frozen=True)
class TrimmedMeanConfig(Config):
    """Extreme values of every coordinate are left out."""

    #: How many are left out at either end.
    attackers: int = 1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "attackers")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` where nothing would be left."""
        _require_cohort(config, self.attackers, 2, 1, "the trimmed mean")


@dataclasses.dataclass(frozen=True)
class KrumConfig(Config):
    """The update closest to others."""

    #: How many of a round may be wrong, f.
    attackers: int = 1

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "attackers")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for more attackers than Krum withstands."""
        _require_cohort(config, self.attackers, 2, 3, "Krum")


@dataclasses.dataclass(frozen=True)
class MultiKrumConfig(KrumConfig):
    """The mean of the updates closest to others."""

    #: How many are averaged; 0: all but f.
    selected: int = 0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "attackers", "selected")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for more attackers than it withstands, or if it must average some."""
        super().check_experiment(config)
        most = config.clients_per_round - self.attackers
        require(
            self.selected <= most,
            "selected",
            f"at most clients_per_round minus attackers ({most}), or attackers would be averaged",
            self.selected,
        )


@dataclasses.dataclass(frozen=True)
class BulyanConfig(Config):
    """Krum's choice, one after another, and the values closest to their median."""

    #: How many of a round may be wrong, f. 0, all that a cohort below 7 allows, is the mean.
    attackers: int = 0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 0, "attackers")

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for more attackers than Bulyan withstands."""
        _require_cohort(config, self.attackers, 4, 3, "Bulyan")


@dataclasses.dataclass(frozen=True)
class GeometricMedianConfig(Config):
    """The point of least distances to all updates."""

    #: Steps of Weiszfeld's algorithm.
    iterations: int = 8
    #: Distance nu below which an update counts as reached.
    smoothing: float = 1e-6

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_at_least(self, 1, "iterations")
        require_positive(self, "smoothing")


AGGREGATORS.register(
    "mean",
    "semanticfl_jax.algorithms.aggregators:mean",
    about="The weighted mean of the updates, summed as they come",
)
AGGREGATORS.register(
    "median",
    "semanticfl_jax.algorithms.aggregators:median",
    about="Yin et al., ICML 2018: the median of every coordinate; needs all updates at once",
    weighted=False,
)
_ROBUST = "semanticfl_jax.algorithms.robust"

AGGREGATORS.register(
    "trimmed_mean",
    f"{_ROBUST}.trimmed_mean:trimmed_mean",
    settings=TrimmedMeanConfig,
    about="Yin et al., ICML 2018: extreme values of every coordinate are left out; needs all "
    "updates at once",
    weighted=False,
)
AGGREGATORS.register(
    "krum",
    f"{_ROBUST}.krum:krum",
    settings=KrumConfig,
    about="Blanchard et al., NeurIPS 2017: the update closest to others; needs all updates at once",
    weighted=False,
)
AGGREGATORS.register(
    "multi_krum",
    f"{_ROBUST}.krum:multi_krum",
    settings=MultiKrumConfig,
    about="Blanchard et al., NeurIPS 2017: the mean of the updates closest to others; needs all "
    "updates at once",
    weighted=False,
)
AGGREGATORS.register(
    "bulyan",
    f"{_ROBUST}.bulyan:bulyan",
    settings=BulyanConfig,
    about="El Mhamdi et al., ICML 2018: Krum's choice, and a trimmed mean; needs all updates at "
    "once",
    weighted=False,
)
AGGREGATORS.register(
    "geometric_median",
    f"{_ROBUST}.geometric_median:geometric_median",
    settings=GeometricMedianConfig,
    about="Pillutla et al., IEEE TSP 2022 (RFA): the point of least weighted distances; needs all "
    "updates at once",
)
AGGREGATORS.register(
    "norm_bound",
    f"{_ROBUST}.norm_bound:norm_bound",
    settings=ClipConfig,
    about="Sun et al., 2019: the weighted mean of updates that the server has shortened",
    encodes=True,
)
AGGREGATORS.register(
    "fltrust",
    f"{_ROBUST}.fltrust:fltrust",
    about="Cao et al., NDSS 2021: what points along the server's own update, trained on the public "
    "split",
    weighted=False,
    public=True,
    encodes=True,
)
_COMPRESSION = "semanticfl_jax.algorithms.compression"

AGGREGATORS.register(
    "majority_sign",
    f"{_COMPRESSION}.majority_sign:majority_sign",
    settings=MajoritySignConfig,
    about="Bernstein et al., ICLR 2019 (signSGD): a step along the majority of the signs; 1 bit a "
    "number up",
    weighted=False,
    encodes=True,
    codes=True,
    scale_free=True,
)
AGGREGATORS.register(
    "count_sketch",
    f"{_COMPRESSION}.count_sketch:count_sketch",
    settings=CountSketchConfig,
    about="Rothchild et al., ICML 2020 (FetchSGD): sketches are summed, and the largest numbers "
    "read from the sum",
    encodes=True,
    codes=True,
)
AGGREGATORS.register(
    "secure",
    "semanticfl_jax.algorithms.secure:secure",
    settings=SecureConfig,
    about="Bonawitz et al., CCS 2017, simulated: the weighted mean in fixed point, under masks "
    "that cancel",
    encodes=True,
    codes=True,
)
for _name, _settings, _about in (
    (
        "top_k",
        SparseConfig,
        "Stich et al., NeurIPS 2018: the largest numbers and their places; keeps 1 model a client",
    ),
    (
        "random_k",
        SparseConfig,
        "Stich et al., NeurIPS 2018: numbers at random places; keeps 1 model a client",
    ),
    ("qsgd", QSGDConfig, "Alistarh et al., NeurIPS 2017: random levels of the update's norm"),
    (
        "quantize",
        QuantizeConfig,
        "Suresh et al., ICML 2017: stochastic rounding to 1 .. 8 bits, array by array",
    ),
    (
        "powersgd",
        PowerSGDConfig,
        "Vogels et al., NeurIPS 2019: matrices of low rank; keeps 1 model a client and a bit more",
    ),
):
    TRANSFORMS.register(
        _name,
        f"{_COMPRESSION}.{_name}:{_name}",
        settings=_settings,
        about=_about,
        compresses=True,
    )
TRANSFORMS.register(
    "clip",
    "semanticfl_jax.algorithms.transforms:clip",
    settings=ClipConfig,
    about="McMahan et al., ICLR 2018: every update is scaled to at most a norm",
    scales=True,
)


@dataclasses.dataclass(frozen=True)
class AggregationConfig(Choosing):
    """How updates are changed before they are sent, and combined when they arrive."""

    registries: ClassVar = {"aggregator": AGGREGATORS, "transforms": TRANSFORMS}

    aggregator: Annotated[str, AGGREGATORS] = "mean"
    #: What each client does to its update before it sends it, in this order.
    transforms: tuple[Annotated[str, TRANSFORMS], ...] = ()
    #: By name: settings of the aggregator and of the transforms.
    settings: Any = None

    def check_experiment(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for what something would go around, or what has too few clients."""
        traits = AGGREGATORS[self.aggregator].traits
        self._check_algorithm(config)
        if traits.public and config.guidance.uses_student:
            raise ConfigError(
                f"aggregation.aggregator={self.aggregator} cannot be used with guidance.student: "
                "targets are computed of clients' images alone, and the server trains on its own"
            )
        if traits.public and not config.private:
            raise ConfigError(
                f"aggregation.aggregator={self.aggregator} cannot be used with guidance."
                "anchor_source=oracle: it has features of clients' images alone, and the server "
                "trains on its own"
            )
        smaller = [each for each in self.transforms if TRANSFORMS[each].traits.compresses]
        coder = smaller + [self.aggregator] * traits.codes
        coder += ["privacy.name=local"] * (config.privacy.name == "local" and bool(smaller))
        if len(coder) > 1:
            raise ConfigError(
                f"aggregation.transforms: {' and '.join(coder)} do not go together, since each "
                "decides how many bytes an update takes; choose one"
            )
        scaling = [each for each in self.transforms if TRANSFORMS[each].traits.scales]
        if traits.scale_free and scaling and config.privacy.name != "local":
            raise ConfigError(
                f"aggregation.transforms={scaling[0]} has no effect with aggregation.aggregator="
                f"{self.aggregator}, to which the length of an update is nothing; leave it out"
            )
        require(
            not traits.public or (config.public_per_class >= 1 and config.has_classes),
            "public_per_class",
            f"at least 1 with aggregation.aggregator={self.aggregator}, whose server trains on the "
            "public split (of images with a class)",
            config.public_per_class,
        )
        for each, settings in self.settings.items():
            check = getattr(settings, "check_experiment", None)
            if check is not None:
                try:
                    check(config)
                except ConfigError as error:
                    raise ConfigError(f"aggregation.{each}.{error}") from None

    def _check_algorithm(self, config: ExperimentConfig) -> None:
        """Raise `ConfigError` for what does not go with the algorithm."""
        name, algorithm = config.algorithm.name, config.algorithm.entry.traits
        extra, traits = algorithm.extra, AGGREGATORS[self.aggregator].traits
        chosen = f"aggregation.aggregator={self.aggregator}"
        if algorithm.silent and self != type(self)():
            raise ConfigError(
                f"aggregation must be left out with algorithm.name={name}: its clients send nothing"
            )
        if extra and self.transforms:
            raise ConfigError(
                f"aggregation.transforms must be none with algorithm.name={name}: its clients send "
                f"{extra}, which transforms would not see, got {', '.join(self.transforms)}"
            )
        if extra and traits.encodes:
            raise ConfigError(
                f"{chosen} cannot be used with algorithm.name={name}: its clients send {extra}, "
                "which the aggregator would not see"
            )
        if algorithm.average and self.aggregator != "mean":
            raise ConfigError(
                f"aggregation.aggregator must be mean with algorithm.name={name} "
                f"({algorithm.average}), got {self.aggregator!r}"
            )
        if not traits.weighted and config.algorithm.uses_label_counts:
            raise ConfigError(
                f"{chosen} cannot be used with the weights disco: to it all clients count alike"
            )
        if not traits.weighted and config.algorithm.weights != "auto":
            raise ConfigError(
                f"algorithm.weights must be auto with {chosen}, to which all clients count alike, "
                f"got {config.algorithm.weights!r}"
            )
