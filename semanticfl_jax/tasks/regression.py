"""Numbers an image: squared error, absolute error and the coefficient of determination."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.tasks.base import Task


class Totals(NamedTuple):
    """Sums over test images, float32: `images` a scalar, the others [d].

    Attributes:
      images: how many.
      squares: squared errors.
      absolutes: absolute errors.
      labels: labels, less their mean over the test set as the host has it.
      label_squares: squares of the same.
    """

    images: jax.Array
    squares: jax.Array
    absolutes: jax.Array
    labels: jax.Array
    label_squares: jax.Array


def regression(settings: object, context: TaskContext) -> Task:
    """Build the task: labels float32 [B, d], a logit for each, which is the prediction itself."""
    del settings
    # Sums of squares lose their digits where labels are far from zero, as years are.
    labels = context.test_labels
    center = np.zeros((1, 1), np.float32)
    if labels is not None:
        center = np.asarray(labels, np.float64).mean(axis=0, keepdims=True).astype(np.float32)

    def totals(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Totals:
        valid = mask.astype(jnp.float32)[:, None]
        errors, centered = valid * (logits - labels), valid * (labels - center)
        return Totals(
            images=jnp.sum(valid),
            squares=jnp.sum(jnp.square(errors), axis=0),
            absolutes=jnp.sum(jnp.abs(errors), axis=0),
            labels=jnp.sum(centered, axis=0),
            label_squares=jnp.sum(jnp.square(centered), axis=0),
        )

    return Task(
        "regression",
        loss,
        totals,
        figures,
        predict,
        headline="test_mse",
        higher_is_better=False,
    )


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the squared error of every image, averaged over its d numbers: float32 [B]."""
    return jnp.mean(jnp.square(logits - labels), axis=-1)


def predict(logits: np.ndarray) -> np.ndarray:
    """Return the logits: float32 [n, d]."""
    return np.asarray(logits)


def figures(totals: Totals) -> dict[str, jax.Array]:
    """Return what a test set says.

    Returns:
      `test_mse` and `test_mae`, means over images and numbers; `test_r2`, the share of a number's
      variance that is explained, the mean over numbers that vary; `test_loss`, which is `test_mse`.
    """
    mse = jnp.mean(totals.squares) / totals.images
    spread = totals.label_squares - jnp.square(totals.labels) / totals.images
    varies = spread > 0
    explained = 1 - totals.squares / jnp.where(varies, spread, 1)
    return {
        "test_mse": mse,
        "test_mae": jnp.mean(totals.absolutes) / totals.images,
        "test_r2": jnp.mean(explained, where=varies),
        "test_loss": mse,
    }
