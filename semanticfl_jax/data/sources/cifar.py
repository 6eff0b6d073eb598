"""CIFAR-10 and CIFAR-100, as TFDS prepares them."""

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.prepared import load_prepared


def cifar10(settings: object, context: DatasetContext) -> ImageDataset:
    """Return CIFAR-10, with the normalisation of the FedDifRC family (ICCV 2025)."""
    del settings
    mean, std = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
    arrays = load_prepared("cifar10", context.config.data_dir)
    return named("cifar10", arrays | {"mean": mean, "std": std})


def cifar100(settings: object, context: DatasetContext) -> ImageDataset:
    """Return CIFAR-100 with fine labels, with the normalisation of the FedDifRC family.

    The 20 superclasses are the column `coarse_label`.
    """
    del settings
    arrays = load_prepared("cifar100", context.config.data_dir)
    moments = {"mean": (0.507, 0.487, 0.441), "std": (0.267, 0.256, 0.276)}
    return named("cifar100", arrays | moments)
