"""Experiment configuration: frozen dataclasses, checked in every constructor, without JAX.

    experiment      one run
    model           the clients' network
    algorithm       what clients and server do
    optimizer       what clients and server optimise with, and rates over rounds
    aggregation     what happens to updates between them
    privacy         noise, and what it guarantees
    attack          clients that do not do as they should
    guidance        semantic anchors, and the terms they add to the loss
    heterogeneity   what makes clients differ
    data            the data sets
    task            what is learned of the images
    runtime         devices, chunks, memory: what does not decide results
    fields          what these classes are made of
    overrides       values typed on the command line

`describe` turns all of it into text, for --help.
"""

from semanticfl_jax.config import data, task  # noqa: F401 - register what comes with it
from semanticfl_jax.config.aggregation import AggregationConfig, ClipConfig
from semanticfl_jax.config.algorithm import (
    AlgorithmConfig,
    FedCDAConfig,
    FedDifRCConfig,
    FedDiscoConfig,
    FedDynConfig,
    FedNovaConfig,
    FedProxConfig,
    FedRCLConfig,
    MoonConfig,
)
from semanticfl_jax.config.attack import AttackConfig
from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.fields import (
    Config,
    check_override,
    describe,
    free,
    from_dict,
    require,
    require_at_least,
    require_positive,
    to_dict,
)
from semanticfl_jax.config.guidance import GuidanceConfig
from semanticfl_jax.config.heterogeneity import (
    AvailabilityConfig,
    FeatureSkewConfig,
    ModalityConfig,
    PartitionConfig,
)
from semanticfl_jax.config.model import ModelConfig
from semanticfl_jax.config.optimizer import AdamConfig, OptimizerConfig
from semanticfl_jax.config.privacy import CentralConfig, LocalConfig, PrivacyConfig
from semanticfl_jax.config.runtime import RuntimeConfig
from semanticfl_jax.errors import ConfigError

__all__ = [
    "AdamConfig",
    "AggregationConfig",
    "AlgorithmConfig",
    "AttackConfig",
    "AvailabilityConfig",
    "CentralConfig",
    "ClipConfig",
    "Config",
    "ConfigError",
    "ExperimentConfig",
    "FeatureSkewConfig",
    "FedCDAConfig",
    "FedDifRCConfig",
    "FedDiscoConfig",
    "FedDynConfig",
    "FedNovaConfig",
    "FedProxConfig",
    "FedRCLConfig",
    "GuidanceConfig",
    "LocalConfig",
    "ModalityConfig",
    "ModelConfig",
    "MoonConfig",
    "OptimizerConfig",
    "PartitionConfig",
    "PrivacyConfig",
    "RuntimeConfig",
    "check_override",
    "describe",
    "free",
    "from_dict",
    "require",
    "require_at_least",
    "require_positive",
    "to_dict",
]
