"""CIFAR-10 with the protocol of the FedDifRC family (ICCV 2025), which SemanticFL follows.

ResNet-10 of width 64, 10 clients, 5 a round, 10 local epochs, NID1 label skew of alpha 0.2.
"""

from launch.flags import to_config_dict
from semanticfl_jax.config import ExperimentConfig


def get_config():
    """The family's protocol: these are the defaults of `ExperimentConfig`."""
    return to_config_dict(ExperimentConfig(dataset="cifar10"))
