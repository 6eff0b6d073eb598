"""Image data sets by name: `load_dataset("cifar10", data_dir)`, or `from_config(config)`.

A new data set is one function `(data_dir, options) -> ImageDataset`, entered in `DATASETS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.sources.image_folder import load_image_folder
from semanticfl_jax.data.sources.prepared import load_prepared
from semanticfl_jax.data.sources.tiny_imagenet import load_tiny_imagenet

Channels = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """A classification data set on the host.

    Attributes:
      name: key in `DATASETS`.
      train_images: uint8 `[n, H, W, 3]`, possibly memory-mapped.
      train_labels: int32 `[n]` in 0..num_classes-1.
      test_images: uint8 `[m, H, W, 3]`, possibly memory-mapped.
      test_labels: int32 `[m]`.
      class_names: as they read in "a photo of a {class}".
      mean: of each channel, in 0..1, for normalisation.
      std: of each channel, in 0..1, for normalisation.
      columns: further values of every training image by name, int32 or str `[n]`, by whose distinct
        values a natural partition can form clients.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mean: Channels
    std: Channels
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Options:
    """What only data sets of image files take; the others have nothing to choose.

    Attributes:
      image_size: side in pixels to which images are brought; 0: as they are.
      unreadable: "refuse" or "skip" image files that are missing or damaged.
    """

    image_size: int = 0
    unreadable: str = "refuse"


def _digits(data_dir: str | None, options: Options) -> ImageDataset:
    """scikit-learn's 1,797 handwritten digits; nothing is downloaded and data_dir is not used.

    8x8 pixels of 0..16 become 32x32x3 of 0..255 by bilinear interpolation; 360 images, every class
    in proportion, are the test split. Class names, split and normalisation (train's mean and
    standard deviation) are our choice.
    """
    del data_dir, options
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Centres of the fine pixels in units of the coarse; np.interp repeats the outermost values.
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    upsample = np.stack([np.interp(centres, np.arange(8), unit) for unit in np.eye(8)], axis=1)
    grey = upsample @ (digits.images * (255 / 16)) @ upsample.T
    images = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)
    train, test = train_test_split(
        np.arange(len(images)), test_size=360, stratify=digits.target, random_state=0
    )
    labels = digits.target.astype(np.int32)
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return ImageDataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(f"digit {word}" for word in words),
        mean=(float(images[train].mean()) / 255,) * 3,
        std=(float(images[train].std()) / 255,) * 3,
    )


def _prepared(name: str, data_dir: str | None, mean: Channels, std: Channels) -> ImageDataset:
    """A data set prepared by TFDS."""
    return _named(name, load_prepared(name, data_dir) | {"mean": mean, "std": std})


def _named(name: str, arrays: Mapping) -> ImageDataset:
    class_names = tuple(words.replace("_", " ") for words in arrays["class_names"])
    return ImageDataset(name=name, **{**arrays, "class_names": class_names})


def _cifar10(data_dir: str | None, options: Options) -> ImageDataset:
    """CIFAR-10; normalisation of the FedDifRC family (ICCV 2025)."""
    del options
    mean, std = (125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)
    return _prepared("cifar10", data_dir, mean, std)


def _cifar100(data_dir: str | None, options: Options) -> ImageDataset:
    """CIFAR-100 with fine labels; normalisation of the FedDifRC family.

    The 20 superclasses are the column `coarse_label`.
    """
    del options
    return _prepared("cifar100", data_dir, (0.507, 0.487, 0.441), (0.267, 0.256, 0.276))


def _tiny_imagenet(data_dir: str | None, options: Options) -> ImageDataset:
    """TinyImageNet-200; normalisation of the FedDifRC family."""
    arrays = load_tiny_imagenet(data_dir, unreadable=options.unreadable)
    return _named("tiny_imagenet", arrays | {"mean": (0.5,) * 3, "std": (0.5,) * 3})


def _image_folder(data_dir: str | None, options: Options) -> ImageDataset:
    """A folder of images; normalisation by train's mean and standard deviation (our choice)."""
    arrays = load_image_folder(
        data_dir, image_size=options.image_size, unreadable=options.unreadable
    )
    return _named("image_folder", arrays)


#: Data sets by name; each takes data_dir (None for TFDS's own) and options.
DATASETS: dict[str, Callable[[str | None, Options], ImageDataset]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "tiny_imagenet": _tiny_imagenet,
    "image_folder": _image_folder,
}


def load_dataset(
    name: str, data_dir: str | None, *, image_size: int = 0, unreadable: str = "refuse"
) -> ImageDataset:
    """Loads a data set by name.

    Args:
      name: a key of `DATASETS`.
      data_dir: TFDS's data directory, None for `$TFDS_DATA_DIR` or `~/tensorflow_datasets`; of
        tiny_imagenet also the original files, of image_folder the folder.
      image_size: side in pixels of image_folder's images; 0: as they are, all of one size.
      unreadable: "refuse", or "skip" files that are missing or damaged, where the data set consists
        of image files.

    Raises:
      ValueError: for an unknown name, an image_size for another data set, or files that cannot be
        used.
      FileNotFoundError: if the data set is not there, or not prepared and TensorFlow is missing.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {name!r}")
    if image_size and name != "image_folder":
        raise ValueError(
            f"image_size must be 0 for {name}, whose images are published at one size, got "
            f"{image_size}: only image_folder's are resized"
        )
    if unreadable not in ("refuse", "skip"):
        raise ValueError(f"unreadable must be one of refuse, skip, got {unreadable!r}")
    return DATASETS[name](data_dir, Options(image_size, unreadable))


def from_config(config: ExperimentConfig) -> ImageDataset:
    """The data set that a configuration names; see `load_dataset`."""
    return load_dataset(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        unreadable=config.unreadable,
    )
