"""Accuracy and loss of the server model on a test set held on the devices."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.data.augment import normalize
from semanticfl_jax.data.federated import Batch
from semanticfl_jax.simulation.mesh import CLIENTS

PyTree = Any


def make_evaluation(
    model: nn.Module, mesh: Mesh, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]]:
    """Builds the jitted evaluation.

    Returns:
      `evaluate(params, batch_stats, batches) -> {"test_accuracy", "test_loss"}`, float32 scalars
      over the valid rows; `params` is the server's tree, `batches` is a `Batch` whose arrays lead
      with [n_batches, B], n_batches a multiple of the number of devices.
    """

    def evaluate_device(params, batch_stats, batches):
        def add_batch(totals, batch):
            outputs = model.apply(
                {"params": params["model"], "batch_stats": batch_stats},
                normalize(batch.images, mean, std),
                train=False,
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.labels)
            correct = jnp.argmax(outputs.logits, axis=-1) == batch.labels
            values = jnp.stack([correct.astype(jnp.float32), losses, jnp.ones_like(losses)])
            return totals + jnp.sum(jnp.where(batch.mask[None], values, 0.0), axis=1), None

        zeros = jax.lax.pcast(jnp.zeros(3), CLIENTS, to="varying")
        totals, _ = jax.lax.scan(add_batch, zeros, batches)
        return jax.lax.psum(totals, CLIENTS)

    sharded = jax.shard_map(
        evaluate_device,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), PartitionSpec(CLIENTS)),
        out_specs=PartitionSpec(),
    )

    def evaluate(params, batch_stats, batches):
        correct, loss, count = sharded(params, batch_stats, batches)
        return {"test_accuracy": correct / count, "test_loss": loss / count}

    return jax.jit(evaluate)
