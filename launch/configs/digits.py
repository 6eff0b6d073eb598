"""Handwritten digits: small, offline, and the default.

python -m launch.train --workdir=runs/digits
"""

from launch.flags import to_config_dict
from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig


def get_config():
    """10 clients of skewed digits, a narrow ResNet-10."""
    return to_config_dict(
        ExperimentConfig(
            dataset="digits",
            augmentation="none",
            model=ModelConfig(width=8),
            partition=PartitionConfig(scheme="nid1", alpha=0.2),
            rounds=12,
            local_epochs=2,
            batch_size=16,
        )
    )
