"""How many images of what size a run has, known without their files, and without JAX."""

from __future__ import annotations

from typing import NamedTuple

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.errors import SemanticFLError


class Images(NamedTuple):
    """How many images of what size a run has.

    Attributes:
      train: that clients hold, in all.
      test: that the model is tested on.
      side: height and width in pixels.
      classes: of the images.
    """

    train: int
    test: int
    side: int
    classes: int


#: Data sets by their published sizes, as they are read, so that they need not be there.
KNOWN = {
    "cifar10": Images(50_000, 10_000, 32, 10),
    "cifar100": Images(50_000, 10_000, 32, 100),
    "tiny_imagenet": Images(100_000, 10_000, 64, 200),
    "digits": Images(1_437, 360, 32, 10),
    "fashion_mnist": Images(60_000, 10_000, 32, 10),
    "svhn": Images(73_257, 26_032, 32, 10),
}


def images_of(config: ExperimentConfig) -> Images:
    """Return the images of a data set by its name.

    Raises:
      SemanticFLError: for one that is not in `KNOWN`.
    """
    if config.dataset not in KNOWN:
        raise SemanticFLError(
            f"dataset must be one of {', '.join(KNOWN)} to be planned without its files, got "
            f"{config.dataset!r}: give --images=TRAIN,TEST,SIDE,CLASSES"
        )
    return KNOWN[config.dataset]


def images_of_a_client(config: ExperimentConfig, images: Images) -> int:
    """Return what clients hold, if all hold as many and share where there are too few: 1 at least.

    Public images are not held back: `public_per_class` is a small part of a data set.
    """
    held = min(images.train, config.train_limit or images.train)
    return max(1, held // config.num_clients)
