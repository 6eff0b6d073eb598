"""A step's batch: what it is drawn by."""

import jax
import jax.numpy as jnp
import numpy as np

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.local_step import Plan, make_on_batch
from semanticfl_jax.randomness import step_keys
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    SIZES,
    STD,
    SoftmaxRegression,
    make_federation,
)


def test_dropout_is_drawn_anew_in_every_step():
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    _, data, _, _ = federation.start(FEDAVG, make_mesh(1))
    key = jax.random.key(7)
    plan = Plan(
        client=jnp.int32(1),
        state=(),
        steps=jnp.int32(2),
        steps_per_epoch=jnp.int32(1),
        orders=jnp.zeros((2, data.max_size), jnp.int32),
        key=key,
        correction=None,
        rate=jnp.float32(0.1),
        label_counts=jnp.zeros(CLASSES, jnp.int32),
        broadcast=(),
        attacks=None,
        slot=jnp.int32(0),
    )

    def loss_of(params, batch_stats, received, shared, plan, batch, images, key):
        return 0.0 * params, jax.random.key_data(key)

    on_batch = make_on_batch(loss_of, CONFIG, MEAN, STD)
    given = []
    for step in range(2):
        value_and_grad, _ = on_batch(None, (), data, plan, jnp.int32(step))
        (_, found), _ = value_and_grad(Model(jnp.float32(1.0), ()))
        given.append(np.asarray(found))
        _, dropout_key = step_keys(key, jnp.int32(step))
        np.testing.assert_array_equal(found, jax.random.key_data(dropout_key))
    assert not np.array_equal(*given)
