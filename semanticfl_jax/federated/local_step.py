"""One step of local training: a batch's loss, its gradient, and the optimiser."""

from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import Algorithm, Model, TermInputs
from semanticfl_jax.algorithms.trees import where
from semanticfl_jax.attacks.base import Attack
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.augment import augment, normalize
from semanticfl_jax.data.federated import Batch, FederatedDataset, gather_batch
from semanticfl_jax.models import Outputs
from semanticfl_jax.models.losses import masked_mean
from semanticfl_jax.randomness import step_keys
from semanticfl_jax.tasks import CLASSIFICATION, Task
from semanticfl_jax.types import PyTree


class Plan(NamedTuple):
    """What a client will do in a round, settled before its first step.

    Attributes:
      client: int32 scalar; negative: an empty place, which does nothing.
      state: the client's own.
      steps: int32 scalar, optimiser steps.
      steps_per_epoch: int32 scalar.
      orders: int32 [epochs, max_size], each epoch's order of the client's samples.
      key: what augmentation and dropout are drawn from.
      correction: added to every gradient; None: nothing is.
      rate: float32 scalar, the learning rate.
    """

    client: jax.Array
    state: PyTree
    steps: jax.Array
    steps_per_epoch: jax.Array
    orders: jax.Array
    key: jax.Array
    correction: PyTree | None
    rate: jax.Array


class Broadcast(NamedTuple):
    """What the server sends in a round besides the model.

    Attributes:
      rule: of its rule.
      rate: float32 scalar, the learning rate of the clients.
      aggregator: of its aggregator.
      cohort: int32 [places], the ids of those who report; -1 in other places.
    """

    rule: PyTree
    rate: jax.Array
    aggregator: PyTree = ()
    cohort: PyTree = ()


class Progress(NamedTuple):
    """A client under way.

    Attributes:
      index: int32 scalar, steps done.
      model: as trained so far.
      momentum: state of the optimiser.
      losses: float32 [2], loss summed over samples seen: of all steps, and of the last epoch's.
      counts: float32 [2], how many samples those are.
    """

    index: jax.Array
    model: Model
    momentum: PyTree
    losses: jax.Array
    counts: jax.Array


def batch_rows(batch_size: int, data: FederatedDataset) -> int:
    """Return the rows of a batch: no more than the largest client has samples to fill it with."""
    return min(batch_size, data.max_size)


class LossOf(Protocol):
    """The loss of one batch of a client."""

    def __call__(
        self,
        params: PyTree,
        batch_stats: PyTree,
        received: Model,
        shared: PyTree,
        plan: Plan,
        batch: Batch,
        images: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, PyTree]:
        """Return the loss, a float32 scalar, and the new running statistics.

        Args:
          params: those that are trained.
          batch_stats: before this batch.
          received: the server's model.
          shared: `Algorithm.sent_once`.
          plan: of the client.
          batch: its labels, mask and samples.
          images: its images, augmented and normalised, float32 [B, H, W, 3].
          key: of dropout layers.
        """


def make_loss(model: nn.Module, algorithm: Algorithm, task: Task = CLASSIFICATION) -> LossOf:
    """Build the loss of a batch: the task's and the algorithm's terms."""

    def loss_of(params, batch_stats, received, shared, plan, batch, images, key):
        outputs, updates = model.apply(
            {"params": params["model"], "batch_stats": batch_stats},
            images,
            train=True,
            mask=batch.mask,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )

        def apply(other: Model) -> Outputs:
            variables = {"params": other.params["model"], "batch_stats": other.batch_stats}
            return model.apply(variables, images, train=False)

        losses = task.losses(outputs.logits, batch.labels)
        loss = masked_mean(losses, batch.mask)
        for term in algorithm.terms:
            common, per_sample, holders = shared[term.name]
            inputs = TermInputs(
                params=params.get(term.name, {}),
                shared=common,
                outputs=outputs,
                labels=batch.labels,
                mask=batch.mask,
                rows=jax.tree.map(lambda x: jnp.take(x, batch.samples, 0, mode="clip"), per_sample),
                trained=params,
                received=received,
                state=plan.state,
                holds={name: who[plan.client] for name, who in holders.items()},
                apply=apply,
                images=images,
            )
            loss += term.loss(inputs)
        return loss, updates.get("batch_stats", {})

    return loss_of


class TakeStep(Protocol):
    """One optimiser step of a client."""

    def __call__(
        self,
        received: Model,
        shared: PyTree,
        data: FederatedDataset,
        plan: Plan,
        progress: Progress,
    ) -> Progress:
        """Return the progress after one step more."""


def make_step(
    loss_of: LossOf,
    optimizer: optax.GradientTransformation,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    attack: Attack | None = None,
) -> TakeStep:
    """Build the step of a client: batch, augmentation, gradient, correction, optimiser."""
    poison = None if attack is None else attack.poison

    def step(received, shared, data, plan, progress):
        index, (weights, statistics), momentum, losses, counts = progress
        epoch, position = index // plan.steps_per_epoch, index % plan.steps_per_epoch
        rows = batch_rows(config.batch_size, data)
        batch = gather_batch(data, plan.client, plan.orders[epoch], position, rows)
        if poison is not None:
            batch = where(attack.attacks(plan.client), poison(batch), batch)
        augment_key, dropout_key = step_keys(plan.key, index)
        images = augment(augment_key, batch.images, config.augmentation)
        images = normalize(images, mean, std)
        value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, statistics), gradient = value_and_grad(
            weights, statistics, received, shared, plan, batch, images, dropout_key
        )
        if plan.correction is not None:
            gradient = jax.tree.map(jnp.add, gradient, plan.correction)
        direction, momentum = optimizer.update(gradient, momentum, weights)
        updates = jax.tree.map(lambda x: -plan.rate * x, direction)
        model = Model(optax.apply_updates(weights, updates), statistics)
        count = jnp.sum(batch.mask.astype(jnp.float32))
        # Of all steps, and of the last ones.
        in_last = jnp.where(index >= plan.steps - plan.steps_per_epoch, count, 0.0)
        counted = jnp.stack([count, in_last])
        return Progress(index + 1, model, momentum, losses + loss * counted, counts + counted)

    return step
