"""Local training: what one client does with the model it receives."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.algorithms.base import Algorithm, Model, TermInputs
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.augment import augment, normalize
from semanticfl_jax.data.federated import FederatedDataset, epoch_order, gather_batch
from semanticfl_jax.federated.cohort import straggle
from semanticfl_jax.models import Outputs
from semanticfl_jax.models.losses import masked_mean
from semanticfl_jax.types import PyTree


class LocalResult(NamedTuple):
    """A client after its local training.

    Attributes:
      model: as trained.
      loss_sum: float32 scalar, training loss summed over samples seen.
      last_loss: float32 scalar, mean training loss over as many steps as an epoch has, the last.
      samples: float32 scalar, samples seen, each epoch counting.
      steps: int32 scalar, optimiser steps taken.
    """

    model: Model
    loss_sum: jax.Array
    last_loss: jax.Array
    samples: jax.Array
    steps: jax.Array


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
    """

    client: jax.Array
    state: PyTree
    steps: jax.Array
    steps_per_epoch: jax.Array
    orders: jax.Array
    key: jax.Array
    correction: PyTree | None


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


class LocalTraining(NamedTuple):
    """The local training of one client in parts, pure functions.

    `received` is the server's `Model`, `broadcast` what its rule sends besides, `shared` is
    `Algorithm.sent_once`, `key` depends on the seed, the round and the client alone.

    Attributes:
      plan: (broadcast, data, client, state, key) -> Plan.
      start: (received, plan) -> Progress, before the first step.
      advance: (received, shared, data, plan, progress, until, known=False) -> Progress after step
        number `until`, or after the client's last. If `known`, it begins with the first step, and
        `until`, an int, is the last.
      finish: (plan, progress) -> LocalResult.
      alone: (received, broadcast, shared, data, client, state, key, steps=None) -> LocalResult, all
        in one. `steps`: the client's, where they are known (`known_steps`).
    """

    plan: Callable[..., Plan]
    start: Callable[[Model, Plan], Progress]
    advance: Callable[..., Progress]
    finish: Callable[[Plan, Progress], LocalResult]
    alone: Callable[..., LocalResult]


def batch_rows(batch_size: int, data: FederatedDataset) -> int:
    """Rows of a batch: no more than the largest client has samples, which is all it can fill."""
    return min(batch_size, data.max_size)


def known_steps(sizes: np.ndarray, config: ExperimentConfig) -> int | None:
    """Local steps of every client in every round; None if they differ.

    A loop of so many steps need not ask the device after each of them whether to go on, as GPUs do,
    and under `vmap` need not spare clients that are done.
    """
    steps = config.local_epochs * -(-np.asarray(sizes) // config.batch_size)
    whole = config.availability.dropout == 0 and config.availability.straggler_share == 0
    return int(steps[0]) if whole and np.all(steps == steps[0]) else None


def client_optimizer(config: ExperimentConfig) -> optax.GradientTransformation:
    """Heavy-ball SGD in PyTorch's form: weight decay enters the gradient, before the momentum."""
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(
        *clip,
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(config.learning_rate, momentum=config.momentum or None),
    )


def make_local_training(
    model: nn.Module,
    algorithm: Algorithm,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> LocalTraining:
    """Builds the pure functions that train one client.

    `advance` loops over the client's own steps. Under `vmap` it runs for the longest client's, and
    JAX's batching rule of `while_loop` keeps the progress of clients that are done, so a short
    client is trained exactly as it would be alone.
    """
    optimizer = client_optimizer(config)

    def loss_of(params, batch_stats, received, client, state, shared, batch, images, key):
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

        entropies = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.labels)
        loss = masked_mean(entropies, batch.mask)
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
                state=state,
                holds={name: who[client] for name, who in holders.items()},
                apply=apply,
            )
            loss += term.loss(inputs)
        return loss, updates.get("batch_stats", {})

    def plan(
        broadcast: PyTree, data: FederatedDataset, client: jax.Array, state: PyTree, key: jax.Array
    ) -> Plan:
        size = jnp.where(client < 0, 0, data.sizes[client])
        steps_per_epoch = -(-size // config.batch_size)
        order_key, step_key, work_key = jax.random.split(key, 3)
        steps = straggle(work_key, config.local_epochs * steps_per_epoch, config.availability)
        epochs = jnp.arange(config.local_epochs)
        epoch_keys = jax.vmap(jax.random.fold_in, (None, 0))(order_key, epochs)
        orders = jax.vmap(lambda k: epoch_order(k, size, data.max_size))(epoch_keys)
        rule, correction = algorithm.client, None
        if rule is not None and rule.correction is not None:
            correction = rule.correction(state, broadcast)
        return Plan(client, state, steps, steps_per_epoch, orders, step_key, correction)

    def start(received: Model, plan: Plan) -> Progress:
        # Zeros made of `steps` vary over the mesh as the rest does.
        zero = 0 * plan.steps
        zeros = jnp.zeros(2) * plan.steps.astype(jnp.float32)
        return Progress(zero, received, optimizer.init(received.params), zeros, zeros)

    def advance(
        received: Model,
        shared: PyTree,
        data: FederatedDataset,
        plan: Plan,
        progress: Progress,
        until: jax.Array | int,
        known: bool = False,
    ) -> Progress:
        steps, steps_per_epoch = plan.steps, plan.steps_per_epoch
        rows = batch_rows(config.batch_size, data)

        def step(progress: Progress) -> Progress:
            index, (weights, statistics), momentum, losses, counts = progress
            epoch, position = index // steps_per_epoch, index % steps_per_epoch
            batch = gather_batch(data, plan.client, plan.orders[epoch], position, rows)
            augment_key, dropout_key = jax.random.split(jax.random.fold_in(plan.key, index))
            images = augment(augment_key, batch.images, config.augmentation)
            value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
            (loss, statistics), gradient = value_and_grad(
                weights,
                statistics,
                received,
                plan.client,
                plan.state,
                shared,
                batch,
                normalize(images, mean, std),
                dropout_key,
            )
            if plan.correction is not None:
                gradient = jax.tree.map(jnp.add, gradient, plan.correction)
            updates, momentum = optimizer.update(gradient, momentum, weights)
            model = Model(optax.apply_updates(weights, updates), statistics)
            count = jnp.sum(batch.mask.astype(jnp.float32))
            # Of all steps, and of the last ones.
            counted = jnp.stack([count, jnp.where(index >= steps - steps_per_epoch, count, 0.0)])
            return Progress(index + 1, model, momentum, losses + loss * counted, counts + counted)

        if known:
            return jax.lax.fori_loop(0, until, lambda _, progress: step(progress), progress)
        end = jnp.minimum(steps, until)
        return jax.lax.while_loop(lambda progress: progress.index < end, step, progress)

    def finish(plan: Plan, progress: Progress) -> LocalResult:
        losses, counts = progress.losses, progress.counts
        last = losses[1] / jnp.maximum(counts[1], 1.0)
        return LocalResult(progress.model, losses[0], last, counts[0], plan.steps)

    def alone(received, broadcast, shared, data, client, state, key, steps=None):
        planned = plan(broadcast, data, client, state, key)
        progress = start(received, planned)
        known, until = steps is not None, planned.steps if steps is None else steps
        progress = advance(received, shared, data, planned, progress, until, known)
        return finish(planned, progress)

    return LocalTraining(plan, start, advance, finish, alone)
