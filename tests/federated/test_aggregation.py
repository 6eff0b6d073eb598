"""Aggregators in a round, against NumPy over clients trained one by one."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates, mean, median
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated import memory
from semanticfl_jax.federated.memory import check_update_memory
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import CONFIG, FEDAVG, UNRELIABLE


@pytest.fixture(scope="module")
def by_hand(two_layers):
    return ByHand(two_layers, UNRELIABLE)


def with_aggregator(aggregator):
    return dataclasses.replace(FEDAVG, aggregator=aggregator)


def updates_by_hand(by_hand, model, data, key, number, metrics):
    trained = [by_hand.train(model, data, key, number, client) for client in reported(metrics)]
    return [minus(each, model) for each in trained]


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_the_median_of_a_round_is_numpys(two_layers, by_hand, devices, chunk):
    run, (state, data, shared, key) = two_layers.round(
        with_aggregator(median()), devices, chunk, UNRELIABLE
    )
    counts = set()
    for number in range(3):
        before = host(state.model)
        state, metrics = run(state, data, shared, key)
        updates = updates_by_hand(by_hand, before, data, key, number, metrics)
        counts.add(len(updates))
        expected = plus(before, combine(partial(np.median, axis=0), *updates))
        chex.assert_trees_all_close(host(state.model), expected, rtol=1e-5, atol=1e-6)
        average = plus(before, combine(partial(np.mean, axis=0), *updates))
        with pytest.raises(AssertionError):
            chex.assert_trees_all_close(host(state.model), average, rtol=1e-5, atol=1e-6)
    assert len(counts) > 1 and max(counts) <= CONFIG.clients_per_round


def test_the_median_leaves_out_who_is_absent_whatever_they_hold():
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    x[[1, 4]] = [[[np.nan]], [[1e30]]]
    for absent in ([1, 4], [0, 1, 4], [0, 1, 2, 3, 4]):
        present = ~np.isin(np.arange(6), absent)
        found = median().finish(Updates({"x": x}, jnp.zeros(6), present), jax.random.key(0))
        np.testing.assert_allclose(found["x"], np.median(x[present], axis=0), rtol=1e-6)
    # One that is present and not a number counts as one beyond all others.
    found = median().finish(Updates(x, jnp.zeros(6), jnp.arange(6) < 3), jax.random.key(0))
    np.testing.assert_array_equal(found, np.maximum(x[0], x[2]))


def largest():
    """The largest entry of all clients' updates, and 0."""

    def add(totals, updates):
        return jax.tree.map(lambda t, x: jnp.maximum(t, x.max(axis=0)), totals, updates.update)

    return Aggregator(
        "largest",
        init=lambda update: jax.tree.map(lambda x: jnp.zeros(x.shape), update),
        add=add,
        merge=jax.lax.pmax,
        finish=lambda totals, key: totals,
    )


@pytest.mark.parametrize(("devices", "chunk"), [(1, 2), (2, 1)])
def test_a_running_aggregator_may_be_another_than_the_mean(two_layers, by_hand, devices, chunk):
    run, (state, data, shared, key) = two_layers.round(
        with_aggregator(largest()), devices, chunk, UNRELIABLE
    )
    before = host(state.model)
    state, metrics = run(state, data, shared, key)
    updates = updates_by_hand(by_hand, before, data, key, 0, metrics)
    expected = plus(before, combine(lambda x: np.maximum(x.max(0), 0), *updates))
    chex.assert_trees_all_close(host(state.model), expected, rtol=1e-5, atol=1e-6)


def one_at_random():
    """The update of one place of the cohort, drawn at random."""

    def finish(updates, key):
        place = jax.random.randint(key, (), 0, len(updates.weights))
        return jax.tree.map(lambda x: x[place], updates.update)

    return Aggregator("one", finish, needs_updates=True)


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 3), (8, 1)])
def test_what_an_aggregator_draws_depends_on_seed_and_round_alone(two_layers, devices, chunk):
    # Three in a chunk leave one of six places empty, eight devices three of eight.
    run, (state, data, shared, key) = two_layers.round(
        with_aggregator(one_at_random()), devices, chunk
    )
    by_hand, drawn = ByHand(two_layers, CONFIG), set()
    for number in range(3):
        before = host(state.model)
        state, metrics = run(state, data, shared, key)
        place = jax.random.randint(by_hand.key(key, 7, number), (), 0, CONFIG.clients_per_round)
        client = reported(metrics)[int(place)]
        drawn.add(int(place))
        expected = by_hand.train(before, data, key, number, client)
        chex.assert_trees_all_close(host(state.model), expected, rtol=1e-5, atol=1e-6)
    assert len(drawn) > 1


def test_an_aggregator_without_sums_must_say_that_it_needs_the_updates():
    with pytest.raises(ValueError, match="odd must have init, add and merge"):
        Aggregator("odd", lambda totals, key: totals)


def test_the_memory_of_the_updates_is_stated_and_refused(monkeypatch):
    # One million parameters and a thousand running statistics: 4 MB and 4 kB.
    model = Model(
        jax.ShapeDtypeStruct((1000, 1000), jnp.float32), jax.ShapeDtypeStruct((1000,), "f4")
    )
    monkeypatch.setattr(memory, "free_host_memory", lambda: 10**9)
    robust, mesh = with_aggregator(median()), make_mesh(2)
    assert check_update_memory(with_aggregator(mean()), model, 10, mesh) is None
    assert check_update_memory(robust, model, 10, mesh) == (
        "updates for the median: 40.0 MB, 4.0 MB of each of 10 clients, whole on each of 2 devices"
    )
    # Twice, on each of two devices that share the host's memory.
    monkeypatch.setattr(memory, "free_host_memory", lambda: 160 * 10**6)
    with pytest.raises(ValueError, match=r"need 160\.2 MB in host memory, and 160\.0 MB are free"):
        check_update_memory(robust, model, 10, mesh)
