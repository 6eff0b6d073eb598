"""A class at each position: cross-entropy, accuracy and perplexity of the positions that count."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.tasks.base import Task


class Totals(NamedTuple):
    """Sums over the positions that count, of test samples: float32 scalars.

    Attributes:
      loss: cross-entropy.
      positions: how many.
      correct: those whose most likely class is the right one.
    """

    loss: jax.Array
    positions: jax.Array
    correct: jax.Array


def tokens(settings: object, context: TaskContext) -> Task:
    """Build the task: labels int32 [B, ...], -1 where a position does not count; K logits each."""
    del settings, context
    return Task("tokens", loss, totals, figures, predict, headline="test_accuracy")


def entropies(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of every position, 0 where it does not count: float32 [B, ...].

    Args:
      logits: float32 [B, ..., K].
      labels: int32 [B, ...].
    """
    found = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return jnp.where(labels >= 0, found, 0.0)


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return each sample's mean cross-entropy over its positions that count: float32 [B].

    It is 0 for a sample none of whose positions counts. Samples weigh alike, however many of their
    positions count.
    """
    axes = tuple(range(1, labels.ndim))
    counted = jnp.sum((labels >= 0).astype(jnp.float32), axis=axes)
    return jnp.sum(entropies(logits, labels), axis=axes) / jnp.maximum(counted, 1.0)


def totals(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Totals:
    """Return sums over a batch.

    Args:
      logits: float32 [B, ..., K].
      labels: int32 [B, ...].
      mask: bool [B]; rows where it is False do not count.
    """
    rows = jnp.expand_dims(mask, tuple(range(1, labels.ndim)))
    counts = rows & (labels >= 0)
    right = counts & (jnp.argmax(logits, axis=-1) == labels)
    return Totals(
        loss=jnp.sum(jnp.where(counts, entropies(logits, labels), 0.0)),
        positions=jnp.sum(counts.astype(jnp.float32)),
        correct=jnp.sum(right.astype(jnp.float32)),
    )


def figures(totals: Totals) -> dict[str, jax.Array]:
    """Return what a test set says; all its positions that count weigh alike.

    Returns:
      `test_accuracy`, the share of positions whose class is right, NaN where none counts;
      `test_loss`, the mean cross-entropy, 0 where none counts; `test_perplexity`, e to the power of
      it (Jelinek et al., J. Acoust. Soc. Am. 62, 1977).
    """
    mean = totals.loss / jnp.maximum(totals.positions, 1.0)
    return {
        "test_accuracy": totals.correct / totals.positions,
        "test_loss": mean,
        "test_perplexity": jnp.exp(mean),
    }


def predict(logits: np.ndarray) -> np.ndarray:
    """Return the most likely class at each position, of logits [n, ..., K]: int32 [n, ...]."""
    return np.asarray(logits).argmax(axis=-1).astype(np.int32)
