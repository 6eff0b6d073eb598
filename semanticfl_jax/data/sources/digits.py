"""scikit-learn's handwritten digits: small, and nothing is downloaded."""

import numpy as np

from semanticfl_jax.contexts import DatasetContext
from semanticfl_jax.data.sources.dataset import ImageDataset


def digits(settings: object, context: DatasetContext) -> ImageDataset:
    """Return the 1,797 digits; `data_dir` is not used.

    8x8 pixels of 0..16 become 32x32x3 of 0..255 by bilinear interpolation; 360 images, every class
    in proportion, are the test split. Class names, split and normalisation (train's mean and
    standard deviation) are our choice.
    """
    del settings, context
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
        own_moments=True,
    )
