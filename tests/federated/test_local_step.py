"""A step: what its batch is drawn by, and what terms of the loss see."""

import dataclasses
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import LossTerm
from semanticfl_jax.algorithms.base import ClientRule, Finished, Model, ServerRule
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.local_step import Broadcast, Plan, make_loss, make_on_batch
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
    squares,
)

SENT = Broadcast((), jnp.float32(0.1))


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
        attacks=None,
        slot=jnp.int32(0),
    )

    def loss_of(params, batch_stats, received, broadcast, shared, plan, batch, images, key):
        return 0.0 * params, jax.random.key_data(key)

    on_batch = make_on_batch(loss_of, CONFIG, MEAN, STD)
    given = []
    for step in range(2):
        value_and_grad, _ = on_batch(None, None, (), data, plan, jnp.int32(step))
        (_, found), _ = value_and_grad(Model(jnp.float32(1.0), ()))
        given.append(np.asarray(found))
        _, dropout_key = step_keys(key, jnp.int32(step))
        np.testing.assert_array_equal(found, jax.random.key_data(dropout_key))
    assert not np.array_equal(*given)


def test_terms_see_another_model_with_its_own_running_statistics(two_layers):
    model, rng = two_layers.model, np.random.default_rng(0)
    images = jnp.float32(rng.normal(size=(3, 8, 8, 3)))
    variables = model.init(jax.random.key(0), images, train=False)
    received = Model({"model": variables["params"]}, variables["batch_stats"])
    batch = SimpleNamespace(labels=jnp.arange(3), mask=jnp.ones(3, bool), samples=jnp.arange(3))
    plan = SimpleNamespace(state=(), label_counts=None, client=jnp.int32(0))
    term = LossTerm("far", lambda inputs: jnp.sum(inputs.apply(inputs.received).features))
    stats = jax.tree.map(lambda x: x + 1.0, received.batch_stats)  # of the model in training
    found = []
    for algorithm in (FEDAVG.with_term(term), FEDAVG):
        loss_of, shared = make_loss(model, algorithm), algorithm.sent_once
        key = jax.random.key(1)
        loss, _ = loss_of(received.params, stats, received, SENT, shared, plan, batch, images, key)
        found.append(loss)
    expected = jnp.sum(model.apply(variables, images, train=False).features)
    np.testing.assert_allclose(found[0] - found[1], expected, rtol=1e-4)


def test_a_client_can_begin_with_the_gradient_of_all_its_images():
    """Of clients whose last batch is short, by a closed form; side by side, with empty places."""

    def begin(seen):
        def add(step, total):
            _, gradient = seen.value_and_grad(seen.received, step)
            share = seen.count(step) / seen.samples
            return jax.tree.map(lambda t, g: t + share * g, total, gradient)

        zeros = jax.tree.map(jnp.zeros_like, seen.received.params)
        return seen.received, jax.lax.fori_loop(0, seen.steps_per_epoch, add, zeros)

    def finish(trained):
        return Finished((trained.own, trained.samples))

    rule = ClientRule(
        finish, init=lambda model: (jax.tree.map(jnp.zeros_like, model.params), 0), begin=begin
    )
    config = dataclasses.replace(CONFIG, augmentation=(), clients_per_round=len(SIZES))
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    algorithm = dataclasses.replace(FEDAVG, client=rule)
    run, start = federation.round(algorithm, chunk=3, config=config)
    dense = jax.device_get(start[0].params["model"]["Dense_0"])
    state, _ = run(*start)
    gradients, samples = jax.device_get(state.clients)
    np.testing.assert_array_equal(samples, SIZES)
    for client in range(len(SIZES)):
        found = jax.tree.map(lambda g, client=client: g[client], gradients)["model"]["Dense_0"]
        expected = softmax_gradient(federation, client, dense)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


def softmax_gradient(federation, client, dense):
    """The gradient of the mean loss over all images of a client, by NumPy."""
    own = federation.partition.client(client)
    x = np.asarray(squares((federation.images[own] / 255 - MEAN) / STD), np.float32)
    scores = np.exp(x @ dense["kernel"] + dense["bias"])
    wrong = scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[federation.labels[own]]
    wrong = np.float32(wrong / len(own))
    return {"kernel": x.T @ wrong, "bias": wrong.sum(0)}


@pytest.mark.parametrize("chunk", [1, 3])
def test_terms_see_what_the_server_sends_besides_the_model(chunk):
    """A pull to where the server's state is, which moves: the gradient of the pull, by hand."""
    federation, mu = make_federation(SoftmaxRegression(CLASSES), SIZES), 0.3

    def loss(inputs):
        apart = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), inputs.trained, inputs.broadcast)
        return mu / 2 * sum(jax.tree.leaves(apart))

    def update(state, params, aggregate):
        return jax.tree.map(jnp.add, params, aggregate.update), params

    rule = ServerRule(
        update,
        init=lambda model: jax.tree.map(lambda x: x + 1.0, model.params),
        broadcast=lambda state: state,
    )
    config = dataclasses.replace(
        CONFIG,
        weight_decay=0.0,
        momentum=0.0,
        augmentation=(),
        batch_size=max(SIZES),
        clients_per_round=len(SIZES),
    )
    algorithm = dataclasses.replace(FEDAVG, server=rule, terms=(LossTerm("pull", loss),))
    run, (state, *rest) = federation.round(algorithm, chunk=chunk, config=config)
    common = jax.device_get(state.params["model"]["Dense_0"])
    sent = jax.tree.map(lambda x: x + 1.0, common)
    for _ in range(2):
        state, _ = run(state, *rest)
        moved = jax.tree.map(np.zeros_like, common)
        for client, size in enumerate(SIZES):
            own = common
            for _ in range(config.local_epochs):
                gradient = softmax_gradient(federation, client, own)
                own = {
                    name: y - config.learning_rate * (gradient[name] + mu * (y - sent[name]))
                    for name, y in own.items()
                }
            for name, y in own.items():
                moved[name] += size / sum(SIZES) * (y - common[name])
        sent, common = common, {name: x + moved[name] for name, x in common.items()}
    chex.assert_trees_all_close(state.params["model"]["Dense_0"], common, rtol=1e-4, atol=1e-5)
