r"""TinyImageNet-200 with the protocol of the FedDifRC family (ICCV 2025), which SemanticFL follows.

    python -m launch.train --config=launch/configs/tiny_imagenet.py --workdir=DIR \
        --config.data_dir=tiny-imagenet-200.zip

data_dir is the original archive, or what it holds, or TFDS's directory (docs/guides/data.md). As
cifar10.py, at 64x64 pixels, with weight decay 1e-4 and AutoAugment alone. Not yet run by us to its
end.
"""

from semanticfl_jax.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Return the family's protocol on TinyImageNet-200."""
    return ExperimentConfig(
        dataset="tiny_imagenet", augmentation=("autoaugment",), weight_decay=1e-4
    )
