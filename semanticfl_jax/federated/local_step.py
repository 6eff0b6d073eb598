"""One step of local training: a batch's loss, its gradient, and the optimiser."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import (
    Algorithm,
    Model,
    Moment,
    StepInputs,
    TermInputs,
)
from semanticfl_jax.algorithms.fixed import fixed_in, whole
from semanticfl_jax.algorithms.parts import path_name
from semanticfl_jax.algorithms.trees import where
from semanticfl_jax.attacks.base import Attack
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.augment import as_network_input, augment
from semanticfl_jax.data.federated import Batch, FederatedDataset, gather_batch
from semanticfl_jax.federated.contracts import require_descent, require_model, require_scalar
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
      label_counts: int32 [K], the client's samples of each class.
      attacks: bool scalar, whether it learns from what it poisons; None: nobody does.
      slot: int32 scalar, which of the kept models it received; None: the server's.
    """

    client: jax.Array
    state: PyTree
    steps: jax.Array
    steps_per_epoch: jax.Array
    orders: jax.Array
    key: jax.Array
    correction: PyTree | None
    rate: jax.Array
    label_counts: jax.Array
    attacks: jax.Array | None = None
    slot: jax.Array | None = None


class Broadcast(NamedTuple):
    """What the server sends in a round besides the model.

    Attributes:
      rule: of its rule.
      rate: float32 scalar, the learning rate of the clients.
      aggregator: of its aggregator.
      cohort: int32 [places], the ids of those who report; -1 in other places.
      attackers: bool [N], who attacks, which is not sent; None: nobody does.
      slots: int32 [N], which of the server's kept models each client received; None: the newest.
      newest: int32 scalar, which of them the server has now; None likewise. Not sent.
    """

    rule: PyTree
    rate: jax.Array
    aggregator: PyTree = ()
    cohort: PyTree = ()
    attackers: jax.Array | None = None
    slots: jax.Array | None = None
    newest: jax.Array | None = None


class Progress(NamedTuple):
    """A client under way.

    Attributes:
      index: int32 scalar, steps done.
      model: as trained so far.
      momentum: state of the optimiser.
      losses: float32 [2], loss summed over samples seen: of all steps, and of the last epoch's.
      counts: float32 [2], how many samples those are.
      own: what the client rule carries from step to step; () if nothing.
      terms: of each term that is measured (`measured_terms`) its value, summed over the samples
        seen in all steps: float32 scalars.
    """

    index: jax.Array
    model: Model
    momentum: PyTree
    losses: jax.Array
    counts: jax.Array
    own: PyTree = ()
    terms: Mapping[str, jax.Array] = {}


#: `Model` -> ((loss, (running statistics, {term: its value})), gradient) on one batch.
ValueAndGrad = Callable[
    [Model], tuple[tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]], PyTree]
]


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
        broadcast: Broadcast,
        shared: PyTree,
        plan: Plan,
        batch: Batch,
        images: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, tuple[PyTree, dict[str, jax.Array]]]:
        """Return the loss, a float32 scalar, the new running statistics, and each term's value.

        The values are scalars, which the loss contains.

        Args:
          params: those that are trained.
          batch_stats: before this batch.
          received: the server's model.
          broadcast: what the server sends besides.
          shared: `Algorithm.sent_once`.
          plan: of the client.
          batch: its labels, mask and samples.
          images: its images as the network sees them, augmented and normalised, float32
            [B, H, W, 3]; inputs that are no images, as they are, float32 [B, ...].
          key: of dropout layers.
        """


def make_loss(model: nn.Module, algorithm: Algorithm, task: Task = CLASSIFICATION) -> LossOf:
    """Build the loss of a batch: the task's and the algorithm's terms."""

    def loss_of(params, batch_stats, received, broadcast, shared, plan, batch, images, key):
        fixed = fixed_in(shared)
        outputs, updates = model.apply(
            whole(Model(params, batch_stats), fixed).variables,
            images,
            train=True,
            mask=batch.mask,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )

        def apply(other: Model) -> Outputs:
            other = require_model(other, "TermInputs.apply")
            return model.apply(whole(other, fixed).variables, images, train=False)

        inputs = TermInputs(
            params={},
            shared=(),
            outputs=outputs,
            labels=batch.labels,
            mask=batch.mask,
            trained=params,
            received=received,
            state=plan.state,
            apply=apply,
            images=images,
            label_counts=plan.label_counts,
            broadcast=broadcast.rule,
        )
        logits = outputs.logits if algorithm.logits is None else algorithm.logits(inputs)
        losses = task.losses(logits, batch.labels)
        loss, values = masked_mean(losses, batch.mask), {}
        for term in algorithm.terms:
            common, per_sample, holders = shared[term.name]
            own = inputs._replace(
                params=params.get(term.name, {}),
                shared=common,
                rows=jax.tree.map(lambda x: jnp.take(x, batch.samples, 0, mode="clip"), per_sample),
                holds={name: who[plan.client] for name, who in holders.items()},
            )
            values[term.name] = require_scalar(term.loss(own), term.name)
            loss += values[term.name]
        return loss, (updates.get("batch_stats", {}), values)

    return loss_of


class OnBatch(Protocol):
    """The batch of one step of a client."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        plan: Plan,
        index: jax.Array,
    ) -> tuple[ValueAndGrad, jax.Array]:
        """Return the loss and its gradient of a model, and how many rows are valid.

        `index` is the step's, int32 scalar; the count is a float32 scalar.
        """


def make_on_batch(
    loss_of: LossOf,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    attack: Attack | None = None,
) -> OnBatch:
    """Build the loss and its gradient on a step's batch, augmented and normalised.

    Without `mean`, the inputs are no images, and are not normalised.

    What attackers poison, they poison before that.
    """
    poison = None if attack is None else attack.poison

    def on_batch(received, broadcast, shared, data, plan, index):
        epoch, position = index // plan.steps_per_epoch, index % plan.steps_per_epoch
        rows = batch_rows(config.batch_size, data)
        batch = gather_batch(data, plan.client, plan.orders[epoch], position, rows)
        if poison is not None and plan.attacks is not None:
            batch = where(plan.attacks, poison(batch), batch)
        augment_key, dropout_key = step_keys(plan.key, index)
        images = augment(augment_key, batch.images, config.augmentation)
        images = as_network_input(images, mean, std)

        def value_and_grad(model: Model):
            model = require_model(model, "value_and_grad")
            found = jax.value_and_grad(loss_of, has_aux=True)
            return found(*model, received, broadcast, shared, plan, batch, images, dropout_key)

        return value_and_grad, jnp.sum(batch.mask.astype(jnp.float32))

    return on_batch


class TakeStep(Protocol):
    """One optimiser step of a client."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        plan: Plan,
        progress: Progress,
    ) -> Progress:
        """Return the progress after one step more."""


def make_step(
    on_batch: OnBatch,
    optimizer: optax.GradientTransformation,
    config: ExperimentConfig,
    algorithm: Algorithm,
) -> TakeStep:
    """Build the step of a client: batch, augmentation, gradient, correction, optimiser."""
    rule = algorithm.client
    descend = None if rule is None else rule.descend
    trains = None if rule is None else rule.trains

    def step(received, broadcast, shared, data, plan, progress):
        index, model, momentum, losses, counts, own, terms = progress
        value_and_grad, count = on_batch(received, broadcast, shared, data, plan, index)
        rate, moment = plan.rate, Moment(index, plan.steps_per_epoch, plan.steps)
        if config.optimizer.epoch_decay != 1:
            epoch = (index // plan.steps_per_epoch).astype(jnp.float32)
            rate = rate * config.optimizer.epoch_decay**epoch
        if descend is None:
            (loss, (statistics, values)), gradient = value_and_grad(model)
            terms = {name: total + values[name] * count for name, total in terms.items()}
        else:
            seen = (plan.state, received, broadcast.rule, count, rate, moment, optimizer)
            inputs = StepInputs(without_terms(value_and_grad), model, own, *seen, plan.client)
            found = require_descent(descend(inputs), model, own, algorithm.name)
            loss, statistics, gradient, own = found
        if plan.correction is not None:
            gradient = jax.tree.map(jnp.add, gradient, plan.correction)
        weights = model.params
        if trains is None:
            direction, momentum = optimizer.update(gradient, momentum, weights)
        else:
            # What does not move must not feed its momentum, nor be decayed.
            moving = _moving(trains, moment)
            direction, momentum = optimizer.update(moving(gradient), momentum, moving(weights))
            direction = moving(direction)
        updates = jax.tree.map(lambda x: -rate * x, direction)
        model = Model(optax.apply_updates(weights, updates), statistics)
        # Of all steps, and of the last ones.
        in_last = jnp.where(index >= plan.steps - plan.steps_per_epoch, count, 0.0)
        counted = jnp.stack([count, in_last])
        losses, counts = losses + loss * counted, counts + counted
        return Progress(index + 1, model, momentum, losses, counts, own, terms)

    return step


def measured_terms(algorithm: Algorithm) -> dict[str, jax.Array]:
    """Return zero for each term whose value is measured, float32 scalars by name.

    A client rule's `descend` may ask for several losses in a step: then none is.
    """
    rule = algorithm.client
    if rule is not None and rule.descend is not None:
        return {}
    return {term.name: jnp.zeros(()) for term in algorithm.terms}


def without_terms(
    value_and_grad: ValueAndGrad,
) -> Callable[[Model], tuple[tuple[jax.Array, PyTree], PyTree]]:
    """Return the function as client rules are given it, without the values of the terms."""

    def of_rule(model: Model) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        (loss, (statistics, _)), gradient = value_and_grad(model)
        return (loss, statistics), gradient

    return of_rule


def _moving(
    trains: Callable[[str, Moment], jax.Array | bool], moment: Moment
) -> Callable[[PyTree], PyTree]:
    """Return a function that puts zeros where parameters do not move in this step."""

    def moving(tree: PyTree) -> PyTree:
        kept = jax.tree_util.tree_map_with_path(
            lambda path, x: jnp.where(trains(path_name(path), moment), x, 0.0), Model(tree, ())
        )
        return kept.params

    return moving
