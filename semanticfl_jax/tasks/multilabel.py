"""Any number of labels an image: binary cross-entropy, mean average precision and F1."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.tasks.base import Task

# Average precision ranks images by their logits, in bins that can be counted over devices; images
# of one bin are a tie. A logit's sign, its exponent and the first bits of its mantissa are its bin,
# so that bins are as narrow as logits are small, and networks of any scale are ranked alike.
# Magnitudes below 2 ** _LEAST, and beyond 2 ** (_LEAST + _EXPONENTS), are one bin each.
_MANTISSA, _EXPONENTS, _LEAST = 8, 32, -20
_OF_ONE_SIGN = _EXPONENTS << _MANTISSA
#: All bins: 13 MB of counts for 100 labels.
BINS = 2 * _OF_ONE_SIGN


class Totals(NamedTuple):
    """Sums over test images.

    Attributes:
      loss: float32 scalar, of the losses.
      images: float32 scalar.
      ranked: float32 [2, K, BINS], images without (0) and with (1) label k whose logit is in a bin.
      hits: float32 [K], images with a label that is predicted.
      misses: float32 [K], images whose label is predicted and wrong, or there and not predicted.
    """

    loss: jax.Array
    images: jax.Array
    ranked: jax.Array
    hits: jax.Array
    misses: jax.Array


def multilabel(settings: object, context: TaskContext) -> Task:
    """Build the task: labels uint8 [B, K], a logit for each."""
    del settings, context
    return Task(
        "multilabel", loss, totals, figures, predict, headline="test_mean_average_precision"
    )


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the binary cross-entropy of every image, averaged over labels: float32 [B]."""
    entropies = optax.sigmoid_binary_cross_entropy(logits, labels.astype(jnp.float32))
    return jnp.mean(entropies, axis=-1)


def predict(logits: np.ndarray) -> np.ndarray:
    """Return uint8 [n, K]: 1 where a label is likelier than not."""
    return (np.asarray(logits) > 0).astype(np.uint8)


def bins(logits: jax.Array) -> jax.Array:
    """Return the bin of every logit, int32 from 0 to `BINS` - 1; they rise with float32 logits."""
    bits = jax.lax.bitcast_convert_type(jnp.abs(logits), jnp.int32)
    least = (_LEAST + 127) << _MANTISSA  # 127: the bias of float32's exponents
    size = jnp.clip((bits >> (23 - _MANTISSA)) - least, 0, _OF_ONE_SIGN - 1)
    return jnp.where(logits < 0, _OF_ONE_SIGN - 1 - size, _OF_ONE_SIGN + size)


def totals(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Totals:
    """Return sums over a batch: logits float32 [B, K], labels uint8 [B, K], mask bool [B]."""
    valid, there = mask.astype(jnp.float32), labels > 0
    predicted = logits > 0
    numbers = jnp.arange(logits.shape[-1])[None]
    ranked = jnp.zeros((2, logits.shape[-1], BINS), jnp.float32)
    ranked = ranked.at[there.astype(jnp.int32), numbers, bins(logits)].add(valid[:, None])
    return Totals(
        loss=jnp.sum(valid * loss(logits, labels)),
        images=jnp.sum(valid),
        ranked=ranked,
        hits=jnp.sum(valid[:, None] * (there & predicted), axis=0),
        misses=jnp.sum(valid[:, None] * (there != predicted), axis=0),
    )


def figures(totals: Totals) -> dict[str, jax.Array]:
    """Return what a test set says.

    Returns:
      `test_mean_average_precision`: of each label, the precision at every image that has it, in
      order of logits, averaged over these images; then the mean over labels. `test_f1`: 2 hits /
      (2 hits + misses) of each label, then the mean. Both leave out labels that no test image has.
      `test_label_accuracy`: the share of right decisions, of all images and labels. `test_loss`.
    """
    without, with_label = totals.ranked[0, :, ::-1], totals.ranked[1, :, ::-1]  # likeliest first
    found = jnp.cumsum(with_label, axis=-1)
    precision = found / jnp.maximum(found + jnp.cumsum(without, axis=-1), 1)
    positives = found[:, -1]
    tested = positives > 0
    average = jnp.sum(precision * with_label, axis=-1) / jnp.maximum(positives, 1)
    f1 = 2 * totals.hits / jnp.maximum(2 * totals.hits + totals.misses, 1)
    wrong = jnp.sum(totals.misses)
    return {
        "test_mean_average_precision": jnp.mean(average, where=tested),
        "test_f1": jnp.mean(f1, where=tested),
        "test_label_accuracy": 1 - wrong / (totals.images * len(totals.hits)),
        "test_loss": totals.loss / totals.images,
    }
