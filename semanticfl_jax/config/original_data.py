"""Data sets that are read from their original files, which `data_dir` has."""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config.fields import FREE, Config, require
from semanticfl_jax.config.values import PathText
from semanticfl_jax.registry import DATASETS

#: CIFAR-10-C's corruptions, as its files are called; the last four are its extra ones.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur"),
    *("motion_blur", "zoom_blur", "snow", "frost", "fog", "brightness", "contrast"),
    *("elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)


@dataclasses.dataclass(frozen=True)
class EMNISTConfig(Config):
    """EMNIST (Cohen et al., 2017)."""

    #: Which of its splits: 47 balanced classes, all 62, 47 merged ones, 26 letters, 10 digits.
    split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced"


@dataclasses.dataclass(frozen=True)
class CIFAR10CConfig(Config):
    """CIFAR-10-C (Hendrycks, Dietterich, ICLR 2019): CIFAR-10's test images, corrupted."""

    #: Directory of its .npy files; CIFAR-10 itself, which is trained on, is in `data_dir`.
    directory: PathText | None = dataclasses.field(default=None, metadata=FREE)
    #: Kinds that are tested, all of its 15 by default.
    corruptions: tuple[str, ...] = CORRUPTIONS[:15]
    severity: int = 3

    def check(self) -> None:
        """Raise `ConfigError` for values out of range."""
        require(1 <= self.severity <= 5, "severity", "from 1 to 5", self.severity)
        require(len(self.corruptions) > 0, "corruptions", "one at least", self.corruptions)
        for kind in self.corruptions:
            require(kind in CORRUPTIONS, "corruptions", f"of {', '.join(CORRUPTIONS)}", kind)


_SOURCES = "semanticfl_jax.data.sources"

DATASETS.register(
    "fashion_mnist",
    f"{_SOURCES}.idx:fashion_mnist",
    about="Fashion-MNIST: 70,000 grey images of 10 kinds of clothes, its four IDX files",
)
DATASETS.register(
    "emnist",
    f"{_SOURCES}.idx:emnist",
    settings=EMNISTConfig,
    about="EMNIST: handwritten letters and digits, the IDX files of one of its splits",
)
DATASETS.register(
    "svhn",
    f"{_SOURCES}.svhn:svhn",
    about="SVHN: 99,289 digits on house numbers, train_32x32.mat and test_32x32.mat",
)
DATASETS.register(
    "femnist",
    f"{_SOURCES}.femnist:femnist",
    about="FEMNIST of LEAF: 62 handwritten characters with their writers, its .json files",
)
DATASETS.register(
    "cifar10_c",
    f"{_SOURCES}.cifar10_c:cifar10_c",
    settings=CIFAR10CConfig,
    about="CIFAR-10, tested on CIFAR-10-C's corrupted images, its .npy files",
)
DATASETS.register(
    "domain_folder",
    f"{_SOURCES}.domain_folder:domain_folder",
    about="Images in folders DOMAIN/CLASS, as PACS and Office-Caltech; the column `domain`",
    uses=("image_size", "unreadable"),
)
