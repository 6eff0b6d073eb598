"""Experiment configuration: frozen dataclasses, checked in every constructor, without JAX.

    experiment      one run
    model           the clients' network
    algorithm       what clients and server do
    baselines       algorithms that guidance is compared with
    personal        algorithms that leave every client with a model of its own
    objectives      algorithms with another local objective, solver, or server's step
    client_test     clients' own test images
    optimizer       what clients and server optimise with, and rates over rounds
    aggregation     what happens to updates between them
    privacy         noise, and what it guarantees
    asynchronous    rounds of clients that train at their own pace
    attack          clients that do not do as they should
    guidance        semantic anchors, and the terms they add to the loss
    student         the semantic student, the part of guidance that speaks of single images
    heterogeneity   what makes clients differ
    data            the data sets
    original_data   those that are read from their original files
    task            what is learned of the images
    runtime         devices, chunks, memory: what does not decide results
    fields          what these classes are made of
    values          what their fields take
    unknown_fields  answers to fields that do not exist
    overrides       values typed on the command line

`describe` turns all of it into text, for --help.
"""

from semanticfl_jax.config import data, original_data, task  # noqa: F401 - they register
from semanticfl_jax.config.aggregation import AggregationConfig, ClipConfig
from semanticfl_jax.config.algorithm import AlgorithmConfig
from semanticfl_jax.config.asynchronous import AsynchronousConfig
from semanticfl_jax.config.attack import AttackConfig
from semanticfl_jax.config.baselines import (
    FedCDAConfig,
    FedDifRCConfig,
    FedDiscoConfig,
    FedDynConfig,
    FedNovaConfig,
    FedProxConfig,
    FedRCLConfig,
    MoonConfig,
)
from semanticfl_jax.config.client_test import ClientTestConfig
from semanticfl_jax.config.experiment import ExperimentConfig
from semanticfl_jax.config.fields import (
    Config,
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
from semanticfl_jax.config.objectives import (
    FedETFConfig,
    FedExPConfig,
    FedLCConfig,
    FedNTDConfig,
    FedSAMConfig,
    QFFLConfig,
)
from semanticfl_jax.config.optimizer import AdamConfig, OptimizerConfig
from semanticfl_jax.config.overrides import check_override
from semanticfl_jax.config.personal import (
    APFLConfig,
    DittoConfig,
    FedALAConfig,
    FedBNConfig,
    FedPerConfig,
    FedRepConfig,
    IFCAConfig,
    PFedMeConfig,
)
from semanticfl_jax.config.privacy import (
    CentralConfig,
    DPFTRLConfig,
    LocalConfig,
    PrivacyConfig,
)
from semanticfl_jax.config.runtime import RuntimeConfig
from semanticfl_jax.config.student import StudentConfig
from semanticfl_jax.config.values import describe
from semanticfl_jax.errors import ConfigError

__all__ = [
    "APFLConfig",
    "AdamConfig",
    "AggregationConfig",
    "AlgorithmConfig",
    "AsynchronousConfig",
    "AttackConfig",
    "AvailabilityConfig",
    "CentralConfig",
    "ClientTestConfig",
    "ClipConfig",
    "Config",
    "ConfigError",
    "DPFTRLConfig",
    "DittoConfig",
    "ExperimentConfig",
    "FeatureSkewConfig",
    "FedALAConfig",
    "FedBNConfig",
    "FedCDAConfig",
    "FedDifRCConfig",
    "FedDiscoConfig",
    "FedDynConfig",
    "FedETFConfig",
    "FedExPConfig",
    "FedLCConfig",
    "FedNTDConfig",
    "FedNovaConfig",
    "FedPerConfig",
    "FedProxConfig",
    "FedRCLConfig",
    "FedRepConfig",
    "FedSAMConfig",
    "GuidanceConfig",
    "IFCAConfig",
    "LocalConfig",
    "ModalityConfig",
    "ModelConfig",
    "MoonConfig",
    "OptimizerConfig",
    "PFedMeConfig",
    "PartitionConfig",
    "PrivacyConfig",
    "QFFLConfig",
    "RuntimeConfig",
    "StudentConfig",
    "check_override",
    "describe",
    "free",
    "from_dict",
    "require",
    "require_at_least",
    "require_positive",
    "to_dict",
]
