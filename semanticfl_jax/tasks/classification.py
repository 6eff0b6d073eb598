"""One class an image: cross-entropy, accuracy, each class, calibration."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.tasks.base import Task

#: Bins of confidence, of equal width, as in Guo et al. (ICML 2017).
CALIBRATION_BINS = 15


class Totals(NamedTuple):
    """Sums over test images.

    Attributes:
      loss: float32 scalar, cross-entropy.
      class_count: float32 [K], images of each class.
      class_correct: float32 [K], those classified correctly.
      bin_confidence: float32 [bins], the largest class probability of the images in a bin.
      bin_correct: float32 [bins], how many of them are classified correctly.
    """

    loss: jax.Array
    class_count: jax.Array
    class_correct: jax.Array
    bin_confidence: jax.Array
    bin_correct: jax.Array


def count(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Totals:
    """Return sums over a batch.

    Args:
      logits: float32 [B, K].
      labels: int32 [B].
      mask: bool [B]; rows where it is False do not count.
    """
    valid = mask.astype(jnp.float32)
    correct = valid * (jnp.argmax(logits, axis=-1) == labels)
    confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
    # Bins are open at their lower end, ((b - 1) / bins, b / bins].
    place = jnp.clip(jnp.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    in_class = jax.nn.one_hot(labels, logits.shape[-1])
    in_bin = jax.nn.one_hot(place.astype(jnp.int32), CALIBRATION_BINS)
    # By default accelerators would round the confidences first.
    add_up = functools.partial(jnp.matmul, precision="highest")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return Totals(
        loss=jnp.sum(valid * losses),
        class_count=add_up(valid, in_class),
        class_correct=add_up(correct, in_class),
        bin_confidence=add_up(valid * confidence, in_bin),
        bin_correct=add_up(correct, in_bin),
    )


def figures(totals: Totals) -> dict[str, jax.Array]:
    """Return what a test set says.

    Returns:
      `test_accuracy`, `test_loss`; `class_accuracy` [K], NaN for a class without test images; and
      `ece`, the expected calibration error: the mean over images of |accuracy - confidence| of
      their bin (Naeini et al., AAAI 2015; Guo et al., ICML 2017).
    """
    images = jnp.sum(totals.class_count)
    return {
        "test_accuracy": jnp.sum(totals.class_correct) / images,
        "test_loss": totals.loss / images,
        "class_accuracy": totals.class_correct / totals.class_count,
        "ece": jnp.sum(jnp.abs(totals.bin_correct - totals.bin_confidence)) / images,
    }


def predict(logits: np.ndarray) -> np.ndarray:
    """Return the most likely class of logits [n, K]: int32 [n]."""
    return np.asarray(logits).argmax(axis=-1).astype(np.int32)


CLASSIFICATION = Task(
    "classification",
    optax.softmax_cross_entropy_with_integer_labels,
    count,
    figures,
    predict,
    headline="test_accuracy",
)


def classification(settings: object, context: TaskContext) -> Task:
    """Build the task: labels int32 [B], a logit for each of K classes."""
    del settings, context
    return CLASSIFICATION
