"""TFDS builder of TinyImageNet-200, which is not in TFDS's catalogue; importing this registers it.

    import tensorflow_datasets as tfds
    import semanticfl_jax.data.sources.tiny_imagenet_builder
    tfds.builder("tiny_imagenet").download_and_prepare()

Size and SHA-256 of the archive are in checksums.tsv, where TFDS looks for them; they are those that
several public readers of the data set have recorded, the publisher giving none.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from semanticfl_jax.data.sources.file_tree import Archive
from semanticfl_jax.data.sources.image_files import Listing, describe_problems
from semanticfl_jax.data.sources.image_formats import read_image
from semanticfl_jax.data.sources.tiny_imagenet import list_files
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.optional import optional_imports

with optional_imports("prepare", "the TFDS builder of TinyImageNet"):
    import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CLASSES = 200


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """TinyImageNet-200; the split "test" is made of the validation images, which have labels."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "200 classes of ImageNet at 64x64 pixels: 500 training and 50 test images each, "
                "the latter being the original's validation images. Class names are WordNet's."
            ),
            features=tfds.features.FeaturesDict(
                {
                    # Colour images stay the JPEG files they are; grey ones become RGB PNG.
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://www.kaggle.com/c/tiny-imagenet",
            citation=(
                "@techreport{le2015tiny,\n"
                "  title = {Tiny {ImageNet} Visual Recognition Challenge},\n"
                "  author = {Le, Ya and Yang, Xuan S.},\n"
                "  institution = {Stanford University, CS 231N},\n"
                "  year = {2015}\n"
                "}"
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        # Read from the archive as it is: TFDS would unpack 120,000 files.
        archive = Archive(dl_manager.download(URL))
        class_names, listings = list_files(archive)
        for listing in listings.values():
            if listing.problems:
                raise SemanticFLError(f"{URL} is not whole: {describe_problems(listing.problems)}")
        self.info.features["label"].names = class_names
        return {split: self._generate_examples(archive, of) for split, of in listings.items()}

    def _generate_examples(
        self, archive: Archive, listing: Listing
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        from PIL import Image

        for name, label in zip(listing.names, listing.labels, strict=True):
            content = archive.open(name).read()
            with Image.open(io.BytesIO(content)) as image:
                colour = image.mode == "RGB"
            image = io.BytesIO(content) if colour else read_image(io.BytesIO(content))
            yield name, {"image": image, "label": np.int64(label)}
