"""Backdoor: attackers teach the model to see one class in every image with a trigger.

Gu, Dolan-Gavitt, Garg. "BadNets". arXiv 1708.06733 (a small white square in a corner); Bagdasaryan,
Veit, Hua, Estrin, Shmatikov. "How To Backdoor Federated Learning". AISTATS 2020 (the scale).

    a share of an attacker's images gets the trigger and the target's label;   u_i' = scale u_i

Its success is measured on the test images of all other classes with the trigger: the share that is
taken for the target (`attack_success` in the metrics).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semanticfl_jax.attacks.base import Attack, attackers_of
from semanticfl_jax.config.attack import BackdoorConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.data.federated import Batch
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


def backdoor(settings: BackdoorConfig, context: AlgorithmContext) -> Attack:
    """Build the attack.

    Raises:
      SemanticFLError: if the target is no class.
    """
    if settings.target >= context.num_classes:
        raise SemanticFLError(
            f"attack.backdoor.target must be below the number of classes {context.num_classes}, "
            f"got {settings.target}"
        )

    def trigger(images: jax.Array) -> jax.Array:
        return images.at[..., -settings.size :, -settings.size :, :].set(255)

    def poison(batch: Batch) -> Batch:
        # A fixed part of the images, by a hash of their place in the training set (Knuth's).
        assert batch.samples is not None  # training batches have them
        mixed = batch.samples.astype(jnp.uint32) * jnp.uint32(2654435761)
        chosen = mixed < jnp.uint32(min(int(settings.poisoned * 2**32), 2**32 - 1))
        images = jnp.where(chosen[:, None, None, None], trigger(batch.images), batch.images)
        labels = jnp.where(chosen, settings.target, batch.labels)
        return batch._replace(images=images, labels=labels)

    def forge(update: PyTree, key: jax.Array) -> PyTree:
        del key
        return jax.tree.map(lambda x: settings.scale * x, update)

    return Attack(
        "backdoor",
        attackers_of(context),
        poison=poison,
        forge=None if settings.scale == 1 else forge,
        trigger=trigger,
        target=settings.target,
    )
