r"""CIFAR-100 with the protocol of the FedDifRC family (ICCV 2025), which SemanticFL follows.

    python -m launch.train --config=launch/configs/cifar100.py --workdir=DIR --config.data_dir=DIR

As cifar10.py, with weight decay 1e-4, and AutoAugment's CIFAR policy after crop and flip. Not yet
run by us. A natural split, one client a superclass:

    --config.partition.scheme=natural --config.partition.column=coarse_label --config.num_clients=20
"""

from semanticfl_jax.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Return the family's protocol on CIFAR-100, fine labels."""
    return ExperimentConfig(
        dataset="cifar100", augmentation=("crop_flip", "autoaugment"), weight_decay=1e-4
    )
