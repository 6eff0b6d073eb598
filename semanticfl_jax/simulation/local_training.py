"""Local training: what one client does with the model it receives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import Algorithm, Model, TermInputs
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.augment import augment, normalize
from semanticfl_jax.data.federated import FederatedDataset, epoch_order, gather_batch
from semanticfl_jax.models import Outputs
from semanticfl_jax.semantics.losses import masked_mean
from semanticfl_jax.simulation.cohort import straggle

PyTree = Any


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


LocalTraining = Callable[..., LocalResult]


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
    """Builds the pure function that trains one client.

    Returns:
      `local_training(received, broadcast, shared, data, client, state, key) -> LocalResult`, where
      `received` is the server's `Model`, `broadcast` what its rule sends besides, `shared` is
      `Algorithm.sent_once`, `client` is an int32 scalar (negative: an empty place, trained for no
      step), `state` is the client's own, `key` depends on the seed, the round and the client alone.

    The loop runs for the client's own number of steps. Under `vmap` it runs for the longest
    client's, and JAX's batching rule of `while_loop` keeps the state of clients that are done, so
    a short client is trained exactly as it would be alone.
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

    def local_training(
        received: Model,
        broadcast: PyTree,
        shared: PyTree,
        data: FederatedDataset,
        client: jax.Array,
        state: PyTree,
        key: jax.Array,
    ) -> LocalResult:
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

        def step(index, carry):
            weights, statistics, momentum, losses, counts = carry
            epoch, position = index // steps_per_epoch, index % steps_per_epoch
            batch = gather_batch(data, client, orders[epoch], position, config.batch_size)
            augment_key, dropout_key = jax.random.split(jax.random.fold_in(step_key, index))
            images = augment(augment_key, batch.images, config.augmentation)
            value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
            (loss, statistics), gradient = value_and_grad(
                weights,
                statistics,
                received,
                client,
                state,
                shared,
                batch,
                normalize(images, mean, std),
                dropout_key,
            )
            if correction is not None:
                gradient = jax.tree.map(jnp.add, gradient, correction)
            updates, momentum = optimizer.update(gradient, momentum, weights)
            weights = optax.apply_updates(weights, updates)
            count = jnp.sum(batch.mask.astype(jnp.float32))
            # Of all steps, and of the last ones.
            counted = jnp.stack([count, jnp.where(index >= steps - steps_per_epoch, count, 0.0)])
            return weights, statistics, momentum, losses + loss * counted, counts + counted

        # Zeros made of `size` vary over the mesh as the rest of the carry does.
        zeros = jnp.zeros(2) * size.astype(jnp.float32)
        params, batch_stats = received
        start = (params, batch_stats, optimizer.init(params), zeros, zeros)
        trained, statistics, _, losses, counts = jax.lax.fori_loop(0, steps, step, start)
        last = losses[1] / jnp.maximum(counts[1], 1.0)
        return LocalResult(Model(trained, statistics), losses[0], last, counts[0], steps)

    return local_training
