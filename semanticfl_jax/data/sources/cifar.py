"""CIFAR-10 and CIFAR-100: as published, by TFDS, or in parquet files of the Hugging Face hub."""

from __future__ import annotations

from typing import Any

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources import cifar_archives
from semanticfl_jax.data.sources.contents import describe_contents
from semanticfl_jax.data.sources.dataset import ImageDataset, named
from semanticfl_jax.data.sources.parquet import find_parquet, load_parquet
from semanticfl_jax.data.sources.prepared import data_root, find_preparation, load_prepared
from semanticfl_jax.errors import MissingFileError


def cifar10(settings: object, context: DatasetContext) -> ImageDataset:
    """Return CIFAR-10, with the normalisation of the FedDifRC family (ICCV 2025)."""
    del settings
    moments = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
    return named("cifar10", _load("cifar10", context.config), moments)


def cifar100(settings: object, context: DatasetContext) -> ImageDataset:
    """Return CIFAR-100 with fine labels, with the normalisation of the FedDifRC family.

    The 20 superclasses are the column `coarse_label`.
    """
    del settings
    moments = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
    return named("cifar100", _load("cifar100", context.config), moments)


def _load(name: str, config: ExperimentConfig) -> dict[str, Any]:
    """Return arrays in whatever form they are there; one that was read before goes first."""
    root = data_root(config.data_dir)
    if find_preparation(root, name) is not None:
        return load_prepared(name, config.data_dir)
    original = cifar_archives.find_original(root, name)
    if original is None:
        rows = find_parquet(root, name)
        if rows is not None:
            return load_parquet(rows, name, unreadable=config.unreadable)
        if not config.download:
            return _prepare(name, config)
        original = cifar_archives.download_original(root, name)
    return cifar_archives.load_original(original)


def _prepare(name: str, config: ExperimentConfig) -> dict[str, Any]:
    """Let TFDS download and prepare the data set, which needs TensorFlow."""
    try:
        return load_prepared(name, config.data_dir)
    except MissingFileError:
        root = data_root(config.data_dir)
        archives = " or ".join(cifar_archives.ARCHIVES[name])
        raise MissingFileError(
            f"{name} is not in {root}: {describe_contents(root)}. Place {archives} there, unpacked "
            f"or not (from {cifar_archives.HOME}cifar.html), or have it downloaded with "
            "--config.download=true. TensorFlow Datasets prepares it, too, where TensorFlow is "
            "installed: pip install 'semanticfl-jax[prepare]'"
        ) from None
