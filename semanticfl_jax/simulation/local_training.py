"""Local training: what one client does with the model it receives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.base import LossTerm, TermInputs
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.augment import AUGMENTATIONS, normalize
from semanticfl_jax.data.federated import FederatedDataset, epoch_order, gather_batch
from semanticfl_jax.semantics.losses import masked_mean

PyTree = Any


class LocalResult(NamedTuple):
    """What a client sends back, and what it measured.

    Attributes:
      params: trained minus received parameters.
      batch_stats: trained minus received running statistics of batch normalisation.
      loss_sum: float32 scalar, training loss summed over samples seen.
      samples: float32 scalar, samples seen, each epoch counting.
      steps: int32 scalar, optimiser steps taken.
    """

    params: PyTree
    batch_stats: PyTree
    loss_sum: jax.Array
    samples: jax.Array
    steps: jax.Array


LocalTraining = Callable[..., LocalResult]


def client_optimizer(config: ExperimentConfig) -> optax.GradientTransformation:
    """Heavy-ball SGD in PyTorch's form: weight decay enters the gradient, before the momentum."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.sgd(config.learning_rate, momentum=config.momentum or None),
    )


def make_local_training(
    model: nn.Module,
    terms: tuple[LossTerm, ...],
    config: ExperimentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> LocalTraining:
    """Builds the pure function that trains one client.

    Returns:
      `local_training(params, batch_stats, shared, data, client, key) -> LocalResult`, where
      `params` is {"model": ..., term name: ...}, `shared` is `Algorithm.sent_once`, `client` is an
      int32 scalar (negative: an empty place, trained for no step), `key` depends on the seed, the
      round and the client alone.

    The loop runs for the client's own number of steps. Under `vmap` it runs for the longest
    client's, and JAX's batching rule of `while_loop` keeps the state of clients that are done, so
    a short client is trained exactly as it would be alone.
    """
    optimizer = client_optimizer(config)
    augment = AUGMENTATIONS[config.augmentation]

    def loss_of(params, batch_stats, shared, batch, images, key):
        outputs, updates = model.apply(
            {"params": params["model"], "batch_stats": batch_stats},
            images,
            train=True,
            mask=batch.mask,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        entropies = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.labels)
        loss = masked_mean(entropies, batch.mask)
        for term in terms:
            own = params.get(term.name, {})
            common, per_sample = shared[term.name]
            rows = jax.tree.map(lambda x: jnp.take(x, batch.samples, 0, mode="clip"), per_sample)
            loss += term.loss(TermInputs(own, common, outputs, batch.labels, batch.mask, rows))
        return loss, updates.get("batch_stats", {})

    def local_training(
        params: PyTree,
        batch_stats: PyTree,
        shared: PyTree,
        data: FederatedDataset,
        client: jax.Array,
        key: jax.Array,
    ) -> LocalResult:
        size = jnp.where(client < 0, 0, data.sizes[client])
        steps_per_epoch = -(-size // config.batch_size)
        steps = config.local_epochs * steps_per_epoch
        order_key, step_key = jax.random.split(key)
        epochs = jnp.arange(config.local_epochs)
        epoch_keys = jax.vmap(jax.random.fold_in, (None, 0))(order_key, epochs)
        orders = jax.vmap(lambda k: epoch_order(k, size, data.max_size))(epoch_keys)

        def step(index, carry):
            weights, statistics, momentum, loss_sum, samples = carry
            epoch, position = index // steps_per_epoch, index % steps_per_epoch
            batch = gather_batch(data, client, orders[epoch], position, config.batch_size)
            augment_key, dropout_key = jax.random.split(jax.random.fold_in(step_key, index))
            images = normalize(augment(augment_key, batch.images), mean, std)
            value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
            (loss, statistics), gradient = value_and_grad(
                weights, statistics, shared, batch, images, dropout_key
            )
            updates, momentum = optimizer.update(gradient, momentum, weights)
            weights = optax.apply_updates(weights, updates)
            count = jnp.sum(batch.mask.astype(jnp.float32))
            return weights, statistics, momentum, loss_sum + loss * count, samples + count

        # Zeros made of `size` vary over the mesh as the rest of the carry does.
        zero = 0.0 * size.astype(jnp.float32)
        start = (params, batch_stats, optimizer.init(params), zero, zero)
        trained, statistics, _, loss_sum, samples = jax.lax.fori_loop(0, steps, step, start)
        return LocalResult(
            params=jax.tree.map(jnp.subtract, trained, params),
            batch_stats=jax.tree.map(jnp.subtract, statistics, batch_stats),
            loss_sum=loss_sum,
            samples=samples,
            steps=steps,
        )

    return local_training
