"""A data set on the host: what every source gives and every run trains on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax.data.sources.inputs import as_inputs
from semanticfl_jax.data.sources.labels import as_labels, kept_kind, names_of, wanted_kind
from semanticfl_jax.errors import SemanticFLError

# Bytes of images that a fingerprint reads at most; of more images it reads every k-th.
_FINGERPRINT_BYTES = 200_000_000

#: Name of a data set of arrays that was given none.
UNNAMED = "arrays"

Channels = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images, or other inputs, and their labels on the host.

    Attributes:
      name: what it is called in reports; the registry's name of one that was chosen by name.
      train_images: uint8 `[n, H, W, 3]`, possibly memory-mapped; inputs that are no images are
        float32 or int32 `[n, ...]`, and reach the network as they are, as float32.
      train_labels: int32 `[n]` in 0..num_classes-1; for tasks without classes uint8 `[n, K]` of 0
        and 1, float32 `[n, K]`, or int32 `[n, ...]` of a class at each position, -1 where it does
        not count.
      test_images: likewise, `[m, ...]`.
      test_labels: likewise, `[m]`, `[m, K]` or `[m, ...]`.
      class_names: as they read in "a photo of a {class}"; for tasks without classes, a name for
        each of the K labels or numbers of an image, or of the K classes of a position.
      mean: of each channel, in 0..1, for normalisation; () where inputs stay as they are.
      std: likewise.
      columns: further values of every training image by name, int32 or str `[n]`, by whose distinct
        values a natural partition can form clients.
      own_moments: whether `mean` and `std` are exactly those of the training images, of which
        clients hold most; published ones, and ones that are given, are not.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    columns: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    own_moments: bool = False

    @property
    def num_classes(self) -> int:
        """K: classes of an image or of a position; for other tasks, its labels or numbers."""
        return len(self.class_names)

    @property
    def labels(self) -> str:
        """What an image has, as a task wants it: "class", "binary", "numbers" or "tokens"."""
        return kept_kind(self.train_labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """H, W, 3; of inputs that are no images, their own shape."""
        return self.train_images.shape[1:]

    @property
    def has_images(self) -> bool:
        """Whether the inputs are images, which are normalised; others stay as they are."""
        return bool(self.mean)

    @property
    def has_classes(self) -> bool:
        """Whether every image has one class."""
        return self.labels == "class"

    @classmethod
    def from_arrays(
        cls,
        train_images: np.ndarray,
        train_labels: np.ndarray,
        test_images: np.ndarray,
        test_labels: np.ndarray,
        class_names: Sequence[str] | None = None,
        *,
        name: str = UNNAMED,
        mean: Channels | None = None,
        std: Channels | None = None,
        columns: Mapping[str, np.ndarray] | None = None,
        task: str | None = None,
    ) -> ImageDataset:
        """Make a data set of arrays.

        Args:
          train_images: uint8 [n, H, W, 3]; one channel, [n, H, W] or [n, H, W, 1], is repeated.
            Or inputs as they are, [n, ...] of any shape: floats, kept as float32, or whole numbers
            of another type, kept as int32. Nothing scales or shifts them. The network gets both as
            float32, [B, ...], which has whole numbers up to 2^24: where it needs them whole, as for
            an embedding, it says `images.astype(jnp.int32)`.
          train_labels: integers [n] from 0 for classification; 0 or 1, [n, K], for multilabel;
            numbers [n] or [n, K] for regression; integers [n, ...] for tokens, from 0, and -1 where
            a position does not count.
          test_images: as `train_images`, of the same size and kind; at least one.
          test_labels: likewise.
          class_names: as they read in "a photo of a {class}"; by default "class 0", "class 1", ...,
            up to the largest label; for tokens a name for each class of a position, for other tasks
            one for each of the K labels or numbers of an image.
          name: of the data set, for reports.
          mean: of each channel in 0..1, for normalisation; by default of the training images. None
            for inputs as they are.
          std: likewise.
          columns: further values of every training image, by whose values clients can be formed.
          task: name of the task that the labels are for; by default they are taken for what their
            type and shape say: whole numbers [n] are classes, whole numbers or truth values [n, K]
            are labels of 0 or 1, and other numbers are what regression is to tell. Tokens must be
            asked for: task="tokens".

        Raises:
          SemanticFLError: for arrays that do not fit each other, or inputs that are not finite in
            float32 or beyond 2^24.
        """
        train_images = as_inputs("train_images", train_images)
        test_images = as_inputs("test_images", test_images)
        kind = wanted_kind(task, train_labels, test_labels)
        train_labels = as_labels("train_labels", train_labels, len(train_images), kind)
        test_labels = as_labels("test_labels", test_labels, len(test_images), kind)
        if train_images.shape[1:] != test_images.shape[1:]:
            raise SemanticFLError(
                f"test_images must be as large as train_images, {train_images.shape[1:]}, got "
                f"{test_images.shape[1:]}"
            )
        if train_images.dtype != test_images.dtype:
            raise SemanticFLError(
                f"test_images must be {train_images.dtype}, as train_images, got "
                f"{test_images.dtype}"
            )
        names = names_of(train_labels, test_labels, class_names, kind)
        columns = {
            column: _column(column, values, len(train_labels))
            for column, values in (columns or {}).items()
        }
        return cls(
            name,
            train_images,
            train_labels,
            test_images,
            test_labels,
            names,
            *_moments(train_images, mean, std),
            columns=columns,
            own_moments=train_images.dtype == np.uint8 and (mean is None or std is None),
        )

    def fingerprint(self) -> str:
        """Return a hash of shapes, labels, class names and images.

        Where images exceed some 200 MB it reads every k-th of them: a change to the others alone is
        not seen.
        """
        digest = hashlib.sha256()
        for images, labels in (
            (self.train_images, self.train_labels),
            (self.test_images, self.test_labels),
        ):
            # Left out for uint8, so that the hashes of images stay as they were.
            kind = "" if images.dtype == np.uint8 else f" {images.dtype}"
            digest.update(f"{images.shape} {labels.shape} {labels.dtype}{kind}".encode())
            digest.update(np.ascontiguousarray(labels))
            step = max(1, -(-images.nbytes // _FINGERPRINT_BYTES))
            for start in range(0, len(images), 4096 * step):
                digest.update(np.ascontiguousarray(images[start : start + 4096 * step : step]))
        digest.update(repr((self.class_names, self.mean, self.std)).encode())
        return digest.hexdigest()[:16]

    def parts(self) -> dict[str, str]:
        """Return what can be told of a changed data set but for the images' pixels, by part."""

        def told(array: np.ndarray, pixels: bool) -> str:
            content = b"" if pixels else np.ascontiguousarray(array)
            digest = "" if pixels else f" ({hashlib.sha256(content).hexdigest()[:8]})"
            return f"{array.dtype} {list(array.shape)}{digest}"

        names = repr(self.class_names)
        return {
            "training images": told(self.train_images, True),
            "training labels": told(self.train_labels, False),
            "test images": told(self.test_images, True),
            "test labels": told(self.test_labels, False),
            "class names": names if len(names) < 200 else f"{names[:200]}...",
            "mean and std": f"{self.mean} {self.std}",
        }


def named(
    name: str, arrays: Mapping[str, Any], published: tuple[Channels, Channels] | None = None
) -> ImageDataset:
    """Return the data set of a reader's arrays, with class names as they read in a sentence.

    Args:
      name: of the data set.
      arrays: the fields of an `ImageDataset`, but for the name.
      published: mean and std that others use for it, in place of those of its images.
    """
    if published is not None:
        arrays = {**arrays, "mean": published[0], "std": published[1], "own_moments": False}
    class_names = tuple(words.replace("_", " ").strip() or words for words in arrays["class_names"])
    return ImageDataset(name=name, **{**arrays, "class_names": class_names})


def channel_moments(images: np.ndarray) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of each channel of uint8 [n, H, W, 3], in 0..1."""
    total, squares, count = np.zeros(3), np.zeros(3), 0
    for start in range(0, len(images), 4096):
        block = images[start : start + 4096].reshape(-1, 3) / 255.0
        total += block.sum(0)
        squares += np.square(block).sum(0)
        count += len(block)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    red, green, blue = map(float, mean)
    return (red, green, blue), (float(std[0]), float(std[1]), float(std[2]))


def _moments(
    images: np.ndarray, mean: Channels | None, std: Channels | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation that normalise images, of which either may be given.

    Both are () for inputs as they are, for which none may be given.
    """
    if images.dtype != np.uint8:
        for moment, given in (("mean", mean), ("std", std)):
            if given is not None:
                raise SemanticFLError(
                    f"{moment} must be left out with inputs of {images.dtype}, which reach the "
                    "network as they are: standardise them before; images, which are normalised, "
                    "are uint8 [n, H, W, 3]"
                )
        return (), ()
    if mean is None or std is None:
        found = channel_moments(images)
        mean, std = found[0] if mean is None else mean, found[1] if std is None else std
    for moment, values in (("mean", mean), ("std", std)):
        above = 0.0 if moment == "std" else -np.inf
        fits = np.shape(values) == (3,) and np.isfinite(values).all() and min(values) > above
        if not fits:
            raise SemanticFLError(
                f"{moment} must be three finite numbers{' above 0' * (moment == 'std')}, one a "
                f"channel, got {values!r}"
            )
    return mean, std


def _column(name: str, values: Any, count: int) -> np.ndarray:
    """Return one value an image, whole numbers or texts."""
    found = np.asarray(values)
    if found.shape != (count,):
        raise SemanticFLError(
            f"columns: {name} must be one value an image, [{count}], got {np.shape(values)}"
        )
    if found.dtype == object and all(isinstance(value, str) for value in found):
        found = found.astype(str)
    if found.dtype.kind not in "iuU":
        raise SemanticFLError(
            f"columns: {name} must be whole numbers or texts, none missing, got {found.dtype}"
        )
    return found
