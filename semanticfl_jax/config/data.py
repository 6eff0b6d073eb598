"""The data sets that come with the project."""

from semanticfl_jax.registry import DATASETS

_SOURCES = "semanticfl_jax.data.sources"

DATASETS.register(
    "digits",
    f"{_SOURCES}.digits:digits",
    about="scikit-learn's 1,797 handwritten digits, at 32x32 pixels; nothing is downloaded",
)
DATASETS.register(
    "cifar10",
    f"{_SOURCES}.cifar:cifar10",
    about="CIFAR-10: 60,000 images of 10 classes, as published or by TFDS",
    uses=("download",),
)
DATASETS.register(
    "cifar100",
    f"{_SOURCES}.cifar:cifar100",
    about="CIFAR-100: 60,000 images of 100 classes in 20 superclasses, as published or by TFDS",
    uses=("download",),
)
DATASETS.register(
    "tiny_imagenet",
    f"{_SOURCES}.tiny_imagenet:tiny_imagenet",
    about="TinyImageNet-200: 110,000 images of 64x64 pixels, by TFDS or its original files",
    uses=("unreadable",),
)
DATASETS.register(
    "image_folder",
    f"{_SOURCES}.image_folder:image_folder",
    about="Your own images, in folders or archives, with an optional metadata.csv",
    uses=("image_size", "unreadable"),
)
