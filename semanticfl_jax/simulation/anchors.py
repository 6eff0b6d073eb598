"""The anchors of a run: which images they are made of, and the control that may replace them."""

from pathlib import Path

import numpy as np

from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.data.federation import Federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices import processes
from semanticfl_jax.diffusion.settings import image_size
from semanticfl_jax.reporting.plots.curves import plot_feature_maps
from semanticfl_jax.reporting.plots.drawing import attempt
from semanticfl_jax.semantics.anchor_images import NOT_PRIVATE, AnchorImages, directory_images
from semanticfl_jax.semantics.anchors import Anchors, control_anchors
from semanticfl_jax.semantics.building import checkpoint_directory, obtain_anchors
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.types import Say


def server_anchors(
    federation: Federation, config: ExperimentConfig, feature_dim: int, directory: Path, say: Say
) -> Anchors:
    """Return the anchors of a guided run: read where they exist, else built; plot their maps."""
    dataset = federation.dataset
    anchors = obtain_anchors(
        config.guidance,
        anchor_images(dataset, federation.public, federation.partition, config.guidance),
        dataset.class_names,
        dim=config.guidance.dim or feature_dim,
        seed=config.seed,
        path=directory / files.ANCHORS,
        say=say,
    )
    anchors.require_finite()
    if not anchors.private:
        say(NOT_PRIVATE)
    if anchors.maps and processes.is_main():
        note = None if anchors.private else NOT_PRIVATE
        path = directory / files.PLOTS / "anchors.png"
        attempt(path, lambda: plot_feature_maps(anchors.maps, path, note), say)
    return control_anchors(anchors, config.guidance.anchors, config.seed)


def anchor_images(
    dataset: ImageDataset, public: np.ndarray, partition: Partition, config: GuidanceConfig
) -> AnchorImages | None:
    """Return the images that anchors are made of; None where they are generated, or not at hand."""
    source = config.anchor_source
    if source == "public":
        return AnchorImages(source, dataset.train_images[public], dataset.train_labels[public])
    if source == "oracle":
        samples = np.sort(partition.indices)
        images, labels = dataset.train_images[samples], dataset.train_labels[samples]
        return AnchorImages(source, images, labels, samples, len(dataset.train_labels))
    if source == "directory" and config.anchor_dir is not None:
        side = config.resolution or image_size(checkpoint_directory(config))
        return directory_images(config.anchor_dir, dataset.class_names, side)
    return None
