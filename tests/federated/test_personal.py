"""Clients with layers of their own, rules that draw at random, and terms that look at images."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import LossTerm
from semanticfl_jax.algorithms.aggregators import median
from semanticfl_jax.algorithms.base import ClientRule, Finished, Model, ServerRule
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.config import AlgorithmConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.memory import check_update_memory
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models.losses import masked_mean
from tests.federated.by_hand import ByHand, host, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    SIZES,
    STD,
    UNRELIABLE,
    algorithm_of,
)

BASE_BYTES, HEAD_BYTES = 4 * (12 * 5 + 5 + 12), 4 * (5 * CLASSES + CLASSES)


def with_head(model, head):
    return Model({"model": {**model.params["model"], "head": head}}, model.batch_stats)


#: FedPer (Arivazhagan et al., 2019): every client keeps a head of its own.
FEDPER = ClientRule(
    init=lambda model: model.params["model"]["head"],
    start=lambda head, received, broadcast: with_head(received, head),
    finish=lambda trained: Finished(state=trained.model.params["model"]["head"]),
    uploads=lambda path: not path.startswith("params/model/head/"),
)


def personal(config=CONFIG, **changes):
    return dataclasses.replace(algorithm_of(config), client=FEDPER, **changes)


@pytest.fixture(scope="module")
def expected(two_layers):
    """Three rounds in a plain loop: the server's model and all heads."""
    by_hand = ByHand(two_layers, UNRELIABLE)
    run, (state, data, shared, key) = two_layers.round(config=UNRELIABLE)
    model = host(state.model)
    heads = [model.params["model"]["head"] for _ in SIZES]
    taken = []
    for number in range(3):
        state, metrics = run(state, data, shared, key)  # for its cohort
        clients = reported(metrics)
        trained = [by_hand.train(with_head(model, heads[c]), data, key, number, c) for c in clients]
        for client, own in zip(clients, trained, strict=True):
            heads[client] = own.params["model"]["head"]
        average = partial(np.average, axis=0, weights=[SIZES[c] for c in clients])
        merged = jax.tree.map(lambda *leaves, mean=average: mean(np.stack(leaves)), *trained)
        model = with_head(merged, model.params["model"]["head"])
        taken += clients
    assert len(taken) > len(set(taken)), "somebody must start from a head of an earlier round"
    return model, jax.tree.map(lambda *leaves: np.stack(leaves), *heads)


@pytest.mark.parametrize(
    ("devices", "chunk", "where"),
    [(1, 1, "device"), (1, 3, "device"), (2, 2, "host")],
)
def test_personal_heads_are_those_of_a_plain_loop(two_layers, expected, devices, chunk, where):
    run, (state, data, shared, key) = two_layers.round(
        personal(), devices, chunk, UNRELIABLE, where
    )
    head = host(state.params["model"]["head"])
    for _ in range(3):
        state, _ = run(state, data, shared, key)
    chex.assert_trees_all_equal(host(state.params["model"]["head"]), head)
    chex.assert_trees_all_close(host(state.model), expected[0], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(host(state.clients), expected[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_the_server_keeps_what_is_not_uploaded_whatever_its_rule(two_layers, name):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name=name))
    # A server that decays all of its parameters besides.
    algorithm = personal(config)
    update = algorithm.server.update

    def decaying(state, params, aggregate):
        return update(state, jax.tree.map(lambda x: 0.5 * x, params), aggregate)

    server = dataclasses.replace(algorithm.server, update=decaying)
    algorithm = dataclasses.replace(algorithm, server=server)
    run, (state, data, shared, key) = two_layers.round(algorithm, chunk=2, config=config)
    before = host(state.params["model"])
    state, _ = run(state, data, shared, key)
    chex.assert_trees_all_equal(host(state.params["model"]["head"]), before["head"])
    assert not np.allclose(state.params["model"]["base"]["kernel"], before["base"]["kernel"])


def test_transforms_and_aggregators_do_not_see_what_is_not_uploaded(two_layers):
    seen = []

    def apply(update, state, key):
        seen.append(len(jax.tree.leaves(update)))
        return update, state

    algorithm = personal(transforms=(UpdateTransform("seeing", apply),), aggregator=median())
    run, (state, data, shared, key) = two_layers.round(algorithm, devices=2)
    head = host(state.params["model"]["head"])
    said = check_update_memory(algorithm, state.model, 5, make_mesh(1))
    assert f", {BASE_BYTES} B of each of 5 clients" in said
    state, _ = run(state, data, shared, key)
    assert set(seen) == {3}
    chex.assert_trees_all_equal(host(state.params["model"]["head"]), head)


def test_what_is_not_uploaded_is_no_traffic(two_layers):
    state, data, _, _ = two_layers.start(FEDAVG, make_mesh(1))
    whole, part = (make_traffic(each, state, data) for each in (FEDAVG, personal()))
    assert (whole.up, whole.down) == (BASE_BYTES + HEAD_BYTES,) * 2
    assert (part.up, part.down) == (BASE_BYTES,) * 2
    statistics = dataclasses.replace(
        FEDPER, uploads=lambda path: path != "batch_stats/mean"
    )  # as in FedBN
    local = dataclasses.replace(FEDAVG, client=statistics)
    assert make_traffic(local, state, data).up == BASE_BYTES + HEAD_BYTES - 4 * 12


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 3), (2, 2)])
def test_rules_draw_from_keys_of_their_own(two_layers, devices, chunk):
    client = ClientRule(lambda trained: Finished((), extra=jax.random.uniform(trained.key)))

    def update(state, params, aggregate):
        return params, (aggregate.extra, jax.random.uniform(aggregate.key))

    server = ServerRule(update, init=lambda model: (jnp.zeros(()), jnp.zeros(())))
    algorithm = dataclasses.replace(FEDAVG, client=client, server=server)
    run, (state, data, shared, key) = two_layers.round(algorithm, devices, chunk, UNRELIABLE)
    by_hand, drawn = ByHand(two_layers, UNRELIABLE), set()
    for number in range(2):
        state, metrics = run(state, data, shared, key)
        own = [float(jax.random.uniform(by_hand.key(key, 5, number, c))) for c in reported(metrics)]
        np.testing.assert_allclose(state.server[0], sum(own), rtol=1e-5)
        assert state.server[1] == jax.random.uniform(by_hand.key(key, 8, number))
        drawn |= {*own, float(state.server[1])}
    assert len(drawn) > 6  # all different


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_term_sees_the_images_that_the_network_sees(two_layers, chunk):
    config = dataclasses.replace(CONFIG, augmentation=(), local_epochs=1)

    def brightness(inputs):
        return masked_mean(jnp.mean(inputs.images, axis=(1, 2, 3)), inputs.mask)

    losses = []
    for algorithm in (FEDAVG, FEDAVG.with_term(LossTerm("bright", brightness))):
        run, start = two_layers.round(algorithm, chunk=chunk, config=config)
        metrics = run(*start)[1]
        losses.append(float(metrics.train_loss))
    rows = np.concatenate([two_layers.partition.client(c) for c in reported(metrics)])
    pixels = (two_layers.images[rows] / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(losses[1] - losses[0], pixels.mean(), rtol=1e-3)


def test_a_term_says_what_it_needs_of_the_network():
    assert LossTerm("own", lambda inputs: 0.0, needs=("features", "levels")).needs
    with pytest.raises(ValueError, match=r"own needs .*feature"):
        LossTerm("own", lambda inputs: 0.0, needs=("feature",))
    needed = {}
    for name in ("fedprox", "moon", "fedrcl"):
        config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name=name))
        (term,) = algorithm_of(config).terms
        needed[name] = term.needs
    assert needed == {"fedprox": (), "moon": ("features",), "fedrcl": ("levels",)}
