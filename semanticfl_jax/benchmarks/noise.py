"""Images of noise, for timing: no operation takes longer for what it sees."""

import numpy as np

from semanticfl_jax.data.sources import ImageDataset


def noise_dataset(
    train: int, *, test: int = 10, side: int = 32, num_classes: int = 10
) -> ImageDataset:
    """Return `train` and `test` images of side x side x 3 random bytes, always the same."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        return images, np.arange(count, dtype=np.int32) % num_classes

    train_images, train_labels = draw(train)
    test_images, test_labels = draw(test)
    return ImageDataset(
        name="noise",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
