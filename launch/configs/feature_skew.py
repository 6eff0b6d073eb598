r"""Clients with bad cameras: half of them see noise, blur, few pixels or little contrast.

    python -m launch.train --config=launch/configs/feature_skew.py --workdir=runs/feature_skew

On digits, dealt evenly, so that nothing but the images differs. plots/corruptions.png shows them,
clients.npz records each client's kind and severity. --config.dataset=cifar10 takes real images.
"""

from launch.flags import to_config_dict
from semanticfl_jax.config import (
    ExperimentConfig,
    FeatureSkewConfig,
    ModelConfig,
    PartitionConfig,
)


def get_config():
    """Half of 10 clients corrupted, by one of four kinds each."""
    return to_config_dict(
        ExperimentConfig(
            dataset="digits",
            augmentation=(),
            model=ModelConfig(width=8),
            partition=PartitionConfig(scheme="iid"),
            feature_skew=FeatureSkewConfig(
                corruptions=("noise", "blur", "low_resolution", "contrast"), share=0.5
            ),
            rounds=12,
            local_epochs=2,
            batch_size=16,
        )
    )
