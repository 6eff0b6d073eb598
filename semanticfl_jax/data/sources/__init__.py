"""Image data sets by name: `load_dataset("cifar10", data_dir)`, or `from_config(config)`."""

import dataclasses

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.dataset import UNNAMED, ImageDataset
from semanticfl_jax.registry import DATASETS

__all__ = ["ImageDataset", "from_config", "load_dataset"]


def load_dataset(
    name: str, data_dir: str | None, *, image_size: int = 0, unreadable: str = "refuse"
) -> ImageDataset:
    """Load a data set by name.

    Args:
      name: a key of the registry's `DATASETS`.
      data_dir: TFDS's data directory, None for `$TFDS_DATA_DIR` or `~/tensorflow_datasets`; of
        tiny_imagenet also the original files, of image_folder the folder.
      image_size: side in pixels of image_folder's images; 0: as they are, all of one size.
      unreadable: "refuse", or "skip" files that are missing or damaged, where the data set consists
        of image files.

    Raises:
      ConfigError: for an unknown name, or an image_size for another data set.
      SemanticFLError: for files that cannot be used.
      MissingFileError: if the data set is not there, or not prepared and TensorFlow is missing.
    """
    return from_config(
        ExperimentConfig(
            dataset=name, data_dir=data_dir, image_size=image_size, unreadable=unreadable
        )
    )


def from_config(config: ExperimentConfig) -> ImageDataset:
    """Load the data set that a configuration names; see `load_dataset`."""
    entry = DATASETS[config.dataset]
    data = entry.build(config.dataset_settings, DatasetContext(config), ImageDataset)
    # A builder that did not name its arrays means the entry's name.
    return dataclasses.replace(data, name=entry.name) if data.name == UNNAMED else data
