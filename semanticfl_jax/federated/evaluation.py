"""The server model on a test set held on the devices: the figures of the task."""

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.attacks.base import Attack
from semanticfl_jax.data.augment import as_network_input
from semanticfl_jax.data.federated import Batch
from semanticfl_jax.devices.mesh import CLIENTS, on_each_device
from semanticfl_jax.tasks import CLASSIFICATION, Task

#: The figure that an attack with a trigger adds to an evaluation.
ATTACK_SUCCESS = "attack_success"


def with_trigger(attack: Attack | None, test: Batch) -> Batch | None:
    """Return the test images of other classes with an attack's trigger, labelled as its target.

    The accuracy on them is `ATTACK_SUCCESS`. None for an attack without a trigger.
    """
    if attack is None or attack.trigger is None:
        return None
    return test._replace(
        images=np.asarray(attack.trigger(jnp.asarray(test.images))),
        labels=np.full_like(test.labels, attack.target),
        mask=test.mask & (test.labels != attack.target),
    )


class Evaluate(Protocol):
    """Tests a model; jitted."""

    def __call__(self, model: Model, batches: Batch) -> dict[str, jax.Array]:
        """Return the figures of the task over the valid rows.

        Args:
          model: with its running statistics.
          batches: arrays [n_batches, B, ...], n_batches a multiple of the number of devices.
        """


def make_evaluation(
    network: nn.Module,
    mesh: Mesh,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task = CLASSIFICATION,
) -> Evaluate:
    """Build the evaluation of a network on images of this mean and deviation, () for none."""

    def evaluate_device(model, batches):
        def of_batch(batch):
            images = as_network_input(batch.images, mean, std)
            outputs = network.apply(model.variables, images, train=False)
            return task.totals(outputs.logits, batch.labels, batch.mask)

        def add_batch(totals, batch):
            return jax.tree.map(jnp.add, totals, of_batch(batch)), None

        shapes = jax.eval_shape(of_batch, jax.tree.map(lambda x: x[0], batches))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        totals, _ = jax.lax.scan(add_batch, zeros, batches)
        return jax.lax.psum(totals, CLIENTS)

    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    sharded = on_each_device(evaluate_device, mesh, (everywhere, spread), everywhere)

    def evaluate(model, batches):
        return task.checked_figures(sharded(model, batches))

    return jax.jit(evaluate)
