"""What is given to a simulation from Python: of the kind that it should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from semanticfl_jax.algorithms import Algorithm
from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.config.fields import changed_fields
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.models.nnx_bridge import described
from semanticfl_jax.simulation.callbacks import Callback


def check_kinds(
    config: Any, dataset: Any, model: Any, algorithm: Any, callbacks: Sequence[Any]
) -> None:
    """Raise `ConfigError` for an argument of another kind than it should be."""
    if not isinstance(config, ExperimentConfig):
        raise ConfigError(f"config must be an ExperimentConfig, got {config!r:.200}")
    given: list[tuple[str, Any, type, str]] = [
        ("dataset", dataset, ImageDataset, "an ImageDataset (ImageDataset.from_arrays makes one)"),
        ("model", model, nn.Module, "an instance of a Flax (Linen) module"),
        ("algorithm", algorithm, Algorithm, "an Algorithm (a name belongs into config.algorithm)"),
    ]
    for name, value, kind, words in given:
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{name} must be {words}, got {described(value)}")
    ignored = [] if algorithm is None else changed_fields(config.algorithm)
    ignored = [name for name in ignored if name != "server_learning_rate"]  # `Aggregate.rate`
    if ignored:
        raise ConfigError(
            f"config.algorithm.{ignored[0]} is set and has no effect beside an algorithm that is "
            "given as an object; leave it out"
        )
    methods = [name for name in vars(Callback) if not name.startswith("_")]
    if isinstance(callbacks, Callback) or callable(callbacks):
        raise ConfigError(f"callbacks must be a list of callbacks, got {callbacks!r:.200}")
    for each in callbacks:
        if isinstance(each, type):
            raise ConfigError(f"callbacks must be made, as {each.__name__}(), got the class")
        missing = [name for name in methods if not hasattr(each, name)]
        if missing:
            raise ConfigError(
                f"callbacks must be of the class Callback, got {each!r:.200} without {missing[0]}"
            )
        heard = [name for name in methods if name.startswith("on_")]
        other = [name for name in dir(each) if name.startswith("on_") and name not in heard]
        other = [name for name in other if callable(getattr(each, name))]
        if other:
            raise ConfigError(
                f"{type(each).__name__}.{other[0]} would never be called: callbacks have "
                f"{', '.join(heard)}"
            )
