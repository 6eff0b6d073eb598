"""Federated learning guided by the semantics of a frozen diffusion model, in JAX.

    import semanticfl_jax as sfl

    sfl.use_all_cores()
    config = sfl.ExperimentConfig(
        dataset="digits", augmentation=(), rounds=5, model=sfl.ModelConfig(width=8)
    )
    result = sfl.run(config)
    print(result.summary["final_accuracy"])

Names are imported when they are first used: the configuration and the registry without JAX. The
documentation (`make docs`) lists all of them, section by section.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

#: Where each name comes from; what stands with "api" starts importing JAX.
_EXPORTS = {
    "config": (
        "AggregationConfig",
        "AlgorithmConfig",
        "AsynchronousConfig",
        "AttackConfig",
        "AvailabilityConfig",
        "ClientTestConfig",
        "ExperimentConfig",
        "FeatureSkewConfig",
        "GuidanceConfig",
        "ModalityConfig",
        "ModelConfig",
        "OptimizerConfig",
        "PartitionConfig",
        "PrivacyConfig",
        "RuntimeConfig",
        "StudentConfig",
    ),
    "errors": (
        "ConfigError",
        "DirectoryInUseError",
        "DivergedError",
        "MissingDependencyError",
        "SemanticFLError",
        "Stopped",
    ),
    "devices.cpu_threads": ("use_all_cores",),
    "plugins": (
        "load_plugins",
        "register_aggregator",
        "register_algorithm",
        "register_attack",
        "register_dataset",
        "register_logger",
        "register_model",
        "register_optimizer",
        "register_partition",
        "register_privacy",
        "register_schedule",
        "register_server_optimizer",
        "register_task",
        "register_transform",
    ),
    "api": (
        "Aggregate",
        "Algorithm",
        "Beginning",
        "Callback",
        "ClientRule",
        "ComparisonResult",
        "Contact",
        "Conv",
        "Descent",
        "Finished",
        "ImageDataset",
        "LossTerm",
        "Model",
        "Moment",
        "Outputs",
        "Partition",
        "Result",
        "ServerRule",
        "Simulation",
        "Step",
        "StepInputs",
        "Task",
        "TermInputs",
        "Trained",
        "TrainedModel",
        "compare",
        "load_model",
        "run",
    ),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from semanticfl_jax.api import *  # noqa: F403
    from semanticfl_jax.config import *  # noqa: F403
    from semanticfl_jax.devices.cpu_threads import use_all_cores as use_all_cores
    from semanticfl_jax.errors import ConfigError as ConfigError
    from semanticfl_jax.errors import DirectoryInUseError as DirectoryInUseError
    from semanticfl_jax.errors import DivergedError as DivergedError
    from semanticfl_jax.errors import MissingDependencyError as MissingDependencyError
    from semanticfl_jax.errors import SemanticFLError as SemanticFLError
    from semanticfl_jax.errors import Stopped as Stopped
    from semanticfl_jax.plugins import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
