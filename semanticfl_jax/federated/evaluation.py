"""The server model on a test set held on the devices: accuracy, loss, each class, calibration."""

import functools
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.data.augment import normalize
from semanticfl_jax.data.federated import Batch
from semanticfl_jax.devices.mesh import CLIENTS, varying
from semanticfl_jax.types import PyTree

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
    """Add up a batch.

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
    """Return the measurements on a test set.

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


class Evaluate(Protocol):
    """Tests a model; jitted."""

    def __call__(self, params: PyTree, batch_stats: PyTree, batches: Batch) -> dict[str, jax.Array]:
        """Return `figures` over the valid rows.

        Args:
          params: {"model": ..., term name: ...}.
          batch_stats: running statistics.
          batches: arrays [n_batches, B, ...], n_batches a multiple of the number of devices.
        """


def make_evaluation(
    model: nn.Module, mesh: Mesh, mean: tuple[float, ...], std: tuple[float, ...]
) -> Evaluate:
    """Build the evaluation of a network on images of this mean and deviation."""

    def evaluate_device(params, batch_stats, batches):
        def of_batch(batch):
            outputs = model.apply(
                {"params": params["model"], "batch_stats": batch_stats},
                normalize(batch.images, mean, std),
                train=False,
            )
            return count(outputs.logits, batch.labels, batch.mask)

        def add_batch(totals, batch):
            return jax.tree.map(jnp.add, totals, of_batch(batch)), None

        shapes = jax.eval_shape(of_batch, jax.tree.map(lambda x: x[0], batches))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        zeros = varying(zeros)
        totals, _ = jax.lax.scan(add_batch, zeros, batches)
        return jax.lax.psum(totals, CLIENTS)

    sharded = jax.shard_map(
        evaluate_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(CLIENTS)),
        out_specs=PartitionSpec(),
    )

    def evaluate(params, batch_stats, batches):
        return figures(sharded(params, batch_stats, batches))

    return jax.jit(evaluate)
