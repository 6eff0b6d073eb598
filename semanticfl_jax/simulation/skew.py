"""What sets clients apart besides their labels: corrupted images and missing anchors, on record."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.corruptions import Corruptions, corrupt_clients, draw_corruptions, examples
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.reporting.corruptions import plot_gallery
from semanticfl_jax.semantics.modality import draw_modalities

CLIENTS, GALLERY = "clients.npz", "corruptions.png"


class Skewed(NamedTuple):
    """A data set as the clients have it.

    Attributes:
      clean: as it was.
      dataset: with the clients' images corrupted; `clean` itself without `feature_skew`.
      corruptions: who is corrupted, and how.
    """

    clean: ImageDataset
    dataset: ImageDataset
    corruptions: Corruptions


def corrupt(dataset: ImageDataset, partition: Partition, config: ExperimentConfig) -> Skewed:
    """Draws who is corrupted, and corrupts their images."""
    corruptions = draw_corruptions(config.feature_skew, config.num_clients, config.seed)
    images = corrupt_clients(dataset.train_images, partition, corruptions, config.seed)
    return Skewed(dataset, dataclasses.replace(dataset, train_images=images), corruptions)


def record(
    skewed: Skewed, partition: Partition, config: ExperimentConfig, directory: Path, plots: Path
) -> None:
    """Writes who is corrupted how and who lacks which anchors, and draws corrupted images.

    `clients.npz`, without pickles, holds arrays [num_clients]: `corruption` (str, empty for none)
    and `severity` float32; `holds_text` and `holds_visual` bool. Nothing is written of what does
    not occur.
    """
    arrays = {}
    if config.feature_skew.corruptions:
        kinds, severities = skewed.corruptions
        arrays |= {"corruption": np.array([kind or "" for kind in kinds]), "severity": severities}
    holders = draw_modalities(config.modality, config.num_clients, config.seed)
    arrays |= {f"holds_{name}": who for name, who in holders.items()}
    if arrays:
        files.write(directory / CLIENTS, lambda file: np.savez(file, **arrays))
    before, after = skewed.clean.train_images, skewed.dataset.train_images
    rows = examples(before, after, partition, skewed.corruptions)
    if rows:
        plot_gallery(rows, plots / GALLERY)
