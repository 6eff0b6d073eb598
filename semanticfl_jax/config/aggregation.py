"""Configuration of what happens to updates between clients and server."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar

from semanticfl_jax.config.fields import Choosing, Config, require_positive
from semanticfl_jax.registry import AGGREGATORS, TRANSFORMS


@dataclasses.dataclass(frozen=True)
class ClipConfig(Config):
    """Updates are scaled down to a norm."""

    #: L2 norm of the whole update, batch statistics included, that is left as it is.
    max_norm: float = 1.0

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require_positive(self, "max_norm")


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
TRANSFORMS.register(
    "clip",
    "semanticfl_jax.algorithms.transforms:clip",
    settings=ClipConfig,
    about="McMahan et al., ICLR 2018: every update is scaled to at most a norm",
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
