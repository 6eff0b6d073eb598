"""Local training: what one client does with the model it receives."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from semanticfl_jax.algorithms.base import Algorithm, Beginning, Model
from semanticfl_jax.attacks.base import among
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federated import FederatedDataset, epoch_order
from semanticfl_jax.federated.cohort import samples_of, straggle
from semanticfl_jax.federated.contracts import (
    as_arrays,
    require_begun,
    require_correction,
    require_start,
    require_steps,
)
from semanticfl_jax.federated.local_step import (
    Broadcast,
    Plan,
    Progress,
    make_loss,
    make_on_batch,
    make_step,
    measured_terms,
    without_terms,
)
from semanticfl_jax.federated.optimizers import client_optimizer
from semanticfl_jax.federated.versions import received_by
from semanticfl_jax.randomness import epoch_keys, local_keys
from semanticfl_jax.tasks import CLASSIFICATION, Task
from semanticfl_jax.types import PyTree


class LocalResult(NamedTuple):
    """A client after its local training.

    Attributes:
      model: as trained.
      loss_sum: float32 scalar, training loss summed over samples seen.
      last_loss: float32 scalar, mean training loss over as many steps as an epoch has, the last.
      samples: float32 scalar, samples seen, each epoch counting.
      steps: int32 scalar, optimiser steps taken.
      own: what the client rule carried from step to step; () if nothing.
      terms: of each term that is measured its value, summed as `loss_sum`: float32 scalars.
    """

    model: Model
    loss_sum: jax.Array
    last_loss: jax.Array
    samples: jax.Array
    steps: jax.Array
    own: PyTree = ()
    terms: Mapping[str, jax.Array] = {}


class MakePlan(Protocol):
    """Settles what a client will do in a round."""

    def __call__(
        self,
        broadcast: Broadcast,
        data: FederatedDataset,
        client: jax.Array,
        state: PyTree,
        key: jax.Array,
    ) -> Plan:
        """Return the plan of `client`, int32 scalar, with its state and its key of the round."""


class Advance(Protocol):
    """Trains a client for some steps."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        plan: Plan,
        progress: Progress,
        until: jax.Array | int,
        known: bool = False,
    ) -> Progress:
        """Return the progress after step number `until`, or after the client's last.

        If `known`, training begins with the first step, and `until`, an int, is the last.
        """


class TrainAlone(Protocol):
    """Trains one client from its first step to its last."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        client: jax.Array,
        state: PyTree,
        key: jax.Array,
        steps: int | None = None,
    ) -> LocalResult:
        """Return what the client did; `steps` are its steps, where they are `known_steps`."""


class LocalTraining(NamedTuple):
    """The local training of one client in parts, pure functions.

    `received` is the server's `Model`, or all that it keeps where `Broadcast.slots` says which of
    them each client received; `broadcast` is what it sends besides, `shared` is
    `Algorithm.sent_once`, `state` the client rule's, `key` depends on the seed, the round and the
    client alone.

    Attributes:
      plan: what the client will do.
      start: (received, broadcast, shared, data, plan) -> Progress, before the first step.
      advance: some of its steps.
      finish: (plan, progress) -> LocalResult.
      alone: all in one.
    """

    plan: MakePlan
    start: Callable[[Model, Broadcast, PyTree, FederatedDataset, Plan], Progress]
    advance: Advance
    finish: Callable[[Plan, Progress], LocalResult]
    alone: TrainAlone


def known_steps(sizes: np.ndarray, config: ExperimentConfig, algorithm: Algorithm) -> int | None:
    """Return the local steps of every client in every round; None if they may differ.

    A loop of so many steps need not ask the device after each of them whether to go on, as GPUs do,
    and under `vmap` need not spare clients that are done.
    """
    steps = config.local_epochs * -(-np.asarray(sizes) // config.batch_size)
    whole = config.availability.sampling != "poisson"  # empty places have none
    whole = whole and config.availability.dropout == 0 and config.availability.straggler_share == 0
    whole = whole and (algorithm.client is None or algorithm.client.steps is None)
    return int(steps[0]) if whole and np.all(steps == steps[0]) else None


def make_local_training(
    model: nn.Module,
    algorithm: Algorithm,
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    task: Task = CLASSIFICATION,
) -> LocalTraining:
    """Build the pure functions that train one client.

    `advance` loops over the client's own steps. Under `vmap` it runs for the longest client's, and
    JAX's batching rule of `while_loop` keeps the progress of clients that are done, so a short
    client is trained exactly as it would be alone.
    """
    optimizer, rule = client_optimizer(config), algorithm.client
    loss_of = make_loss(model, algorithm, task)
    on_batch = make_on_batch(loss_of, config, mean, std, algorithm.attack)
    take_step = make_step(on_batch, optimizer, config, algorithm)

    def plan(broadcast, data, client, state, key):
        size = samples_of(client, data.sizes)
        steps_per_epoch = -(-size // config.batch_size)
        keys = local_keys(key)
        steps = straggle(keys.work, config.local_epochs * steps_per_epoch, config.availability)
        if rule is not None and rule.steps is not None:
            asked = require_steps(rule.steps(client, steps), algorithm.name)
            steps = jnp.clip(asked, jnp.minimum(steps, 1), steps)
        of_epochs = epoch_keys(keys.order, config.local_epochs)
        orders = jax.vmap(lambda k: epoch_order(k, size, data.max_size))(of_epochs)
        correction = None
        if rule is not None and rule.correction is not None:
            correction = rule.correction(state, broadcast.rule)
        return Plan(
            client,
            state,
            steps,
            steps_per_epoch,
            orders,
            keys.steps,
            correction,
            broadcast.rate,
            data.label_counts[client],
            None if broadcast.attackers is None else among(broadcast.attackers, client),
            None if broadcast.slots is None else broadcast.slots[client],
        )

    def start(received, broadcast, shared, data, plan):
        received = received_by(received, plan.slot)

        def value_and_grad(model: Model, step: jax.Array):
            found, _ = on_batch(received, broadcast, shared, data, plan, step)
            return without_terms(found)(model)

        def beginning():
            size = samples_of(plan.client, data.sizes)

            def count(step: jax.Array) -> jax.Array:
                before = step * config.batch_size
                return jnp.clip(size - before, 0, config.batch_size).astype(jnp.float32)

            seen = (plan.state, received, broadcast.rule, plan.steps_per_epoch, plan.client)
            return Beginning(value_and_grad, *seen, size, count)

        begun, own = _begin(algorithm, received, broadcast.rule, plan, optimizer, beginning)
        if plan.correction is not None:
            require_correction(plan.correction, begun.params, algorithm.name)
        none, zeros = jnp.zeros_like(plan.steps), jnp.zeros(2)
        momentum, terms = optimizer.init(begun.params), measured_terms(algorithm)
        return Progress(none, begun, momentum, zeros, zeros, own, terms)

    def advance(received, broadcast, shared, data, plan, progress, until, known=False):
        received = received_by(received, plan.slot)

        def step(progress):
            return take_step(received, broadcast, shared, data, plan, progress)

        if known:
            return jax.lax.fori_loop(0, until, lambda _, progress: step(progress), progress)
        end = jnp.minimum(plan.steps, until)
        return jax.lax.while_loop(lambda progress: progress.index < end, step, progress)

    def finish(plan, progress):
        losses, counts = progress.losses, progress.counts
        last, kept = losses[1] / jnp.maximum(counts[1], 1.0), (progress.own, progress.terms)
        return LocalResult(progress.model, losses[0], last, counts[0], plan.steps, *kept)

    def alone(received, broadcast, shared, data, client, state, key, steps=None):
        planned = plan(broadcast, data, client, state, key)
        progress = start(received, broadcast, shared, data, planned)
        known, until = steps is not None, planned.steps if steps is None else steps
        progress = advance(received, broadcast, shared, data, planned, progress, until, known)
        return finish(planned, progress)

    return LocalTraining(plan, start, advance, finish, alone)


def _begin(
    algorithm: Algorithm,
    received: Model,
    broadcast: PyTree,
    plan: Plan,
    optimizer: optax.GradientTransformation,
    beginning: Callable[[], Beginning],
) -> tuple[Model, PyTree]:
    """Return what a client trains from, and what it carries from step to step."""
    rule, name = algorithm.client, algorithm.name
    if rule is None:
        return received, ()
    if rule.begin is not None:
        return require_begun(rule.begin(beginning()), received, name)
    begun, own = received, ()
    if rule.start is not None:
        begun = rule.start(plan.state, received, broadcast)
        begun = require_start(begun, received, f"ClientRule.start of {name} must return a model")
    if rule.carries is not None:
        own = rule.carries(plan.state, received, broadcast, optimizer)
        own = as_arrays(own, f"ClientRule.carries of {name}")
    return begun, own
