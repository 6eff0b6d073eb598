"""Experiment configuration: frozen dataclasses, validated once, before anything slow is imported.

experiment      one run
guidance        its anchors
algorithm       what clients and server do
heterogeneity   what makes clients differ
fields          from plain values to these classes
"""

from __future__ import annotations

from semanticfl_jax.config.algorithm import (
    AlgorithmConfig,
    FedCDAConfig,
    FedDifRCConfig,
    FedRCLConfig,
    describe_algorithms,
)
from semanticfl_jax.config.experiment import ExperimentConfig, ModelConfig
from semanticfl_jax.config.fields import (
    ConfigError,
    check_override,
    describe,
    from_dict,
    require,
    to_dict,
    unknown_field,
)
from semanticfl_jax.config.guidance import GuidanceConfig
from semanticfl_jax.config.heterogeneity import (
    AvailabilityConfig,
    FeatureSkewConfig,
    ModalityConfig,
    PartitionConfig,
)

__all__ = [
    "AlgorithmConfig",
    "AvailabilityConfig",
    "ConfigError",
    "ExperimentConfig",
    "FeatureSkewConfig",
    "FedCDAConfig",
    "FedDifRCConfig",
    "FedRCLConfig",
    "GuidanceConfig",
    "ModalityConfig",
    "ModelConfig",
    "PartitionConfig",
    "check_override",
    "describe",
    "describe_algorithms",
    "from_dict",
    "require",
    "to_dict",
    "unknown_field",
]
