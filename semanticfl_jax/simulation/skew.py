"""What sets clients apart besides their labels: corrupted images and missing anchors, on record."""

import dataclasses
from pathlib import Path

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.corruptions import corrupt_clients, draw_corruptions, examples
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.reporting.corruptions import plot_gallery
from semanticfl_jax.semantics.modality import draw_modalities

CLIENTS, GALLERY = "clients.npz", "corruptions.png"


def corrupted(
    dataset: ImageDataset, partition: Partition, config: ExperimentConfig
) -> ImageDataset:
    """The data set as the clients have it; itself without `feature_skew`."""
    corruptions = draw_corruptions(config.feature_skew, config.num_clients, config.seed)
    images = corrupt_clients(dataset.train_images, partition, corruptions, config.seed)
    return dataclasses.replace(dataset, train_images=images)


def record(config: ExperimentConfig, path: Path) -> None:
    """Writes who is corrupted how and who lacks which anchors; nothing if nobody is or does.

    An `.npz` without pickles of arrays [num_clients]: `corruption` (str, empty for none) and
    `severity` float32; `holds_text` and `holds_visual` bool.
    """
    arrays = {}
    if config.feature_skew.corruptions:
        kinds, severities = draw_corruptions(config.feature_skew, config.num_clients, config.seed)
        arrays |= {"corruption": np.array([kind or "" for kind in kinds]), "severity": severities}
    holders = draw_modalities(config.modality, config.num_clients, config.seed)
    arrays |= {f"holds_{name}": who for name, who in holders.items()}
    if arrays:
        files.write(path, lambda file: np.savez(file, **arrays))


def draw(
    clean: ImageDataset,
    dataset: ImageDataset,
    partition: Partition,
    config: ExperimentConfig,
    path: Path,
) -> None:
    """Draws images of corrupted clients as they are and were, if there are any."""
    corruptions = draw_corruptions(config.feature_skew, config.num_clients, config.seed)
    rows = examples(clean.train_images, dataset.train_images, partition, corruptions)
    if rows:
        plot_gallery(rows, path)
