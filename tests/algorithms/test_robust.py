"""Robust aggregators, against loops in NumPy."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.base import LossTerm, Model
from semanticfl_jax.algorithms.robust.bulyan import bulyan
from semanticfl_jax.algorithms.robust.fltrust import fltrust
from semanticfl_jax.algorithms.robust.geometric_median import geometric_median
from semanticfl_jax.algorithms.robust.krum import krum, multi_krum
from semanticfl_jax.algorithms.robust.trimmed_mean import trimmed_mean
from semanticfl_jax.config import AggregationConfig, AvailabilityConfig, ConfigError
from semanticfl_jax.config.aggregation import (
    BulyanConfig,
    GeometricMedianConfig,
    KrumConfig,
    MultiKrumConfig,
    TrimmedMeanConfig,
)
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import make_local_training
from semanticfl_jax.federated.root import train_root
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    SIZES,
    STD,
    SoftmaxRegression,
    algorithm_of,
    make_federation,
)


def by_krum(x, f, left=None):
    """The index that Krum chooses of the rows of x [n, d] among `left`, and all scores."""
    left = list(range(len(x))) if left is None else left
    scores = {}
    for i in left:
        distances = sorted(np.sum((x[i] - x[j]) ** 2) for j in left if j != i)
        scores[i] = sum(distances[: max(len(left) - f - 2, 1)])
    return min(scores, key=scores.get), scores


def numpy_krum(x, weights, f=2):
    return x[by_krum(x, f)[0]]


def numpy_multi_krum(x, weights, f=2):
    scores = by_krum(x, f)[1]
    best = sorted(scores, key=scores.get)[: len(x) - f]
    return x[best].mean(axis=0)


def numpy_bulyan(x, weights, f=2):
    chosen = []
    while len(chosen) < len(x) - 2 * f:
        chosen.append(by_krum(x, f, [i for i in range(len(x)) if i not in chosen])[0])
    chosen, beta = x[chosen], len(chosen) - 2 * f
    result = np.zeros(x.shape[1])
    for k in range(x.shape[1]):
        away = np.abs(chosen[:, k] - np.median(chosen[:, k]))
        result[k] = chosen[np.argsort(away)[:beta], k].mean()
    return result


def numpy_trimmed_mean(x, weights, f=2):
    return np.sort(x, axis=0)[f:-f].mean(axis=0)


def numpy_geometric_median(x, weights):
    def total(u):
        return np.sum(weights * np.linalg.norm(x - u, axis=1))

    return minimize(total, x.mean(axis=0), method="BFGS", options={"gtol": 1e-9}).x


AGGREGATORS = {
    "trimmed_mean": (trimmed_mean(TrimmedMeanConfig(2)), numpy_trimmed_mean),
    "krum": (krum(KrumConfig(2)), numpy_krum),
    "multi_krum": (multi_krum(MultiKrumConfig(2)), numpy_multi_krum),
    "multi_krum, of more than may be right": (
        multi_krum(MultiKrumConfig(2, selected=15)),
        numpy_multi_krum,
    ),
    "bulyan": (bulyan(BulyanConfig(2)), numpy_bulyan),
    "geometric_median": (
        geometric_median(GeometricMedianConfig(iterations=300)),
        numpy_geometric_median,
    ),
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_robust_aggregators_are_numpys_whoever_is_absent_or_not_a_number(name):
    aggregator, expected_of = AGGREGATORS[name]
    rng, key = np.random.default_rng(3), jax.random.key(0)
    finish = jax.jit(aggregator.finish)
    for absent, broken in (((), ()), ((3, 7), ()), ((0,), (5, 11))):
        x = rng.normal(size=(15, 6)).astype(np.float32)
        x[[2, 9]] += 40  # wrong ones
        weights = rng.uniform(0.5, 1.5, 15).astype(np.float32)
        present = ~np.isin(np.arange(15), absent)
        given = x.copy()
        given[list(broken), 1] = np.nan
        tree = {"a": given[:, :2].reshape(15, 2, 1), "b": given[:, 2:]}
        tree["a"][list(absent)] = 1e30
        updates = Updates(tree, jnp.asarray(np.where(present, weights, 0)), jnp.asarray(present))
        found = finish(updates, key)
        found = np.concatenate([np.ravel(found["a"]), np.ravel(found["b"])])
        kept = present & ~np.isin(np.arange(15), broken)
        expected = expected_of(x[kept].astype(float), weights[kept])
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
        assert np.abs(found).max() < 3, "the wrong ones must not be seen"
        assert np.abs(x[kept].mean(axis=0)).max() > 3


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_round_in_which_nobody_is_left_gives_zero(name):
    updates = Updates({"a": jnp.full((7, 3), jnp.nan)}, jnp.zeros(7), jnp.zeros(7, bool))
    found = AGGREGATORS[name][0].finish(updates, jax.random.key(0))
    np.testing.assert_array_equal(found["a"], np.zeros(3))


@pytest.mark.parametrize(
    ("name", "attackers", "least"), [("trimmed_mean", 3, "2"), ("krum", 2, "2"), ("bulyan", 1, "4")]
)
def test_more_attackers_than_an_aggregator_withstands_are_refused(name, attackers, least):
    settings = {name: {"attackers": attackers}}
    message = rf"{name}.attackers must be .* clients_per_round \(5\) is at least {least} times"
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, aggregation=AggregationConfig(name, settings=settings))
    lower = {name: {"attackers": attackers - 1}}
    dataclasses.replace(
        CONFIG, clients_per_round=6, aggregation=AggregationConfig(name, settings=lower)
    )


def test_multi_krum_averages_no_more_than_may_be_right():
    settings = {"multi_krum": {"attackers": 1, "selected": 5}}
    with pytest.raises(ConfigError, match=r"multi_krum.selected must be at most .* \(4\)"):
        dataclasses.replace(CONFIG, aggregation=AggregationConfig("multi_krum", settings=settings))


@pytest.fixture(scope="module")
def federation():
    return make_federation(SoftmaxRegression(CLASSES), SIZES, spare=12)


def length(update):
    return np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(update)))


UNRELIABLE = dataclasses.replace(CONFIG, availability=AvailabilityConfig(dropout=0.3))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (2, 1)])
def test_norm_bounding_shortens_updates_before_they_are_averaged(federation, devices, chunk):
    bound = AggregationConfig("norm_bound", settings={"norm_bound": {"max_norm": 2.0}})
    config, lengths = dataclasses.replace(UNRELIABLE, aggregation=bound), []
    run, (state, *rest) = federation.round(algorithm_of(config), devices, chunk, config)
    (data, _, key), by_hand = rest, ByHand(federation, config)
    for number in range(3):
        before = host(state.model)
        state, metrics = run(state, *rest)
        clients = reported(metrics)
        updates = [minus(by_hand.train(before, data, key, number, c), before) for c in clients]
        lengths += list(map(length, updates))
        cut = [jax.tree.map(lambda x, u=u: x * min(1, 2 / length(u)), u) for u in updates]
        sizes = [SIZES[c] for c in clients]
        average = combine(lambda x, w=sizes: np.average(x, axis=0, weights=w), *cut)
        chex.assert_trees_all_close(host(state.model), plus(before, average), rtol=1e-4, atol=1e-6)
    assert min(lengths) < 2 < max(lengths)


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (2, 2)])
def test_fltrust_weighs_updates_by_what_the_server_learns_itself(federation, devices, chunk):
    config = dataclasses.replace(UNRELIABLE, aggregation=AggregationConfig("fltrust"))
    public = np.setdiff1d(np.arange(len(federation.images)), federation.partition.indices)
    run, (state, data, shared, key) = federation.round(
        algorithm_of(config), devices, chunk, config, public=public
    )
    # The server as one more client, who holds the public images alone.
    own = data.replace(
        indices=public.astype(np.int32),
        offsets=np.zeros(1, np.int32),
        sizes=np.array([12], np.int32),
        max_size=12,
    )
    alone = jax.jit(make_local_training(federation.model, FEDAVG, CONFIG, MEAN, STD).alone)
    by_hand = ByHand(federation, config)
    for number in range(2):
        before = host(state.model)
        sent = Broadcast((), np.float32(CONFIG.learning_rate))
        root_key = by_hand.key(key, 11, number)
        root = minus(alone(before, sent, {}, own, 0, (), root_key).model, before)
        state, metrics = run(state, data, shared, key)
        total, trust = jax.tree.map(np.zeros_like, before), 0.0
        for client in reported(metrics):
            update = minus(by_hand.train(before, data, key, number, client), before)
            product = sum(
                np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (update, root)), strict=True)
            )
            score = max(0.0, product / length(update) / length(root))
            scale = score * length(root) / length(update)
            total = jax.tree.map(lambda t, x, s=scale: t + s * x, total, update)
            trust += score
        expected = plus(before, jax.tree.map(lambda x, t=trust: x / t, total))
        chex.assert_trees_all_close(host(state.model), expected, rtol=1e-4, atol=1e-6)


def test_the_server_trains_with_all_that_it_sends(federation):
    def pull(inputs):
        squares = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(inputs.trained))
        return inputs.holds["it"] * squares

    config = dataclasses.replace(CONFIG, aggregation=AggregationConfig("fltrust"))
    public = np.setdiff1d(np.arange(len(federation.images)), federation.partition.indices)
    found = []
    for who in (np.zeros(len(SIZES), bool), np.ones(len(SIZES), bool)):
        term = LossTerm("pull", pull, shared={"it": jnp.zeros(1)}, holders={"it": who})
        algorithm = algorithm_of(config).with_term(term)
        training = make_local_training(federation.model, algorithm, config, MEAN, STD)
        state, data, shared, key = federation.start(algorithm, make_mesh(1))
        sent = Broadcast((), np.float32(0.05))
        root = jax.jit(partial(train_root, training, algorithm, public=public))
        found.append(root(state.model, sent, shared, data, key=key))
    chex.assert_trees_all_equal(*found)
    # The term does something at all.
    training = make_local_training(federation.model, FEDAVG, config, MEAN, STD)
    without = jax.jit(partial(train_root, training, FEDAVG, public=public))
    assert length(minus(without(state.model, sent, {}, data, key=key), found[0])) > 1e-2


def test_fltrust_lengthens_no_running_statistics():
    aggregator, root = fltrust(), Model(np.float32([3.0, 0.0]), np.float32([-0.8]))
    given = Model(np.float32([[2.0, 1.0], [9.0, 0.0]]), np.float32([[-0.9], [-0.6]]))
    sent = jax.vmap(lambda update: aggregator.encode(update, root, None))(given)
    present = jnp.ones(2, bool)
    zeros = aggregator.init(jax.tree.map(lambda x: x[0], sent))
    found = aggregator.finish(aggregator.add(zeros, Updates(sent, present / 2, present)), None)
    whole, own = np.append(root.params, root.batch_stats), np.concatenate(given, axis=1)
    lengths = np.linalg.norm(own, axis=1)
    trust = own @ whole / lengths / np.linalg.norm(whole)
    scale = np.linalg.norm(whole) / lengths
    assert scale[0] > 1 > scale[1]
    params = (trust * scale) @ given.params / trust.sum()
    statistics = (trust * np.minimum(scale, 1)) @ given.batch_stats / trust.sum()
    np.testing.assert_allclose(found.params, params, rtol=1e-5)
    np.testing.assert_allclose(found.batch_stats, statistics, rtol=1e-5)
