"""Compression against NumPy, its expectation, and its bytes."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.compression.count_sketch import hashes
from semanticfl_jax.algorithms.compression.majority_sign import majority_sign
from semanticfl_jax.algorithms.compression.powersgd import powersgd
from semanticfl_jax.algorithms.compression.qsgd import qsgd
from semanticfl_jax.algorithms.compression.quantize import quantize
from semanticfl_jax.algorithms.compression.random_k import random_k
from semanticfl_jax.algorithms.compression.top_k import top_k
from semanticfl_jax.config import (
    AggregationConfig,
    ConfigError,
    ModelConfig,
    PrivacyConfig,
)
from semanticfl_jax.config.compression import (
    MajoritySignConfig,
    PowerSGDConfig,
    QSGDConfig,
    QuantizeConfig,
    SparseConfig,
)
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.randomness import HostStream, host_generator
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import (
    CONFIG,
    SIZES,
    WITH_DROPOUT,
    algorithm_of,
)


def update(seed=0):
    rng = np.random.default_rng(seed)
    params = {"a": rng.normal(size=(3, 4, 6)), "b": rng.normal(size=10), "c": np.zeros(5)}
    tree = Model(params, {"mean": 10 * rng.normal(size=7)})
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


NUMBERS, STATISTICS = 72 + 10 + 5, 4 * 7  # parameters; bytes of what travels as it is


def numbers(tree):
    """All parameters of an update, or all numbers of another tree."""
    tree = tree.params if isinstance(tree, Model) else tree
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def plain(transform):
    """Whether running statistics are sent as they are."""
    state = transform.init(jax.tree.map(jnp.zeros_like, update()))
    sent, _ = transform.apply(update(), state, jax.random.key(0))
    return np.array_equal(sent.batch_stats["mean"], update().batch_stats["mean"])


def test_top_k_sends_the_largest_numbers_and_keeps_the_rest_for_the_next_update():
    transform, key = top_k(SparseConfig(0.1)), jax.random.key(0)
    count, left = math.ceil(0.1 * NUMBERS), np.zeros(NUMBERS, np.float32)
    state = transform.init(jax.tree.map(jnp.zeros_like, update()))
    for seed in range(3):
        sent, state = jax.jit(transform.apply)(update(seed), state, key)
        whole = numbers(update(seed)) + left
        expected = whole.copy()
        expected[np.argsort(-np.abs(whole))[count:]] = 0
        np.testing.assert_array_equal(numbers(sent), expected)
        left = whole - expected
        np.testing.assert_array_equal(numbers(state), left)
    assert plain(transform)
    without = top_k(SparseConfig(0.1, feedback=False))
    assert without.init(update()) == ()
    places = math.ceil(count * 7 / 8)  # 87 < 2^7
    assert without.bytes_up(update(), 0) == 4 * count + places + STATISTICS


def test_random_k_sends_numbers_at_random_places():
    feedback, free = random_k(SparseConfig(0.25)), random_k(SparseConfig(0.25, feedback=False))
    given, count = numbers(update()), math.ceil(0.25 * NUMBERS)
    zeros = feedback.init(update())
    sent, left = feedback.apply(update(), zeros, jax.random.key(1))
    chosen = numbers(sent) != 0
    np.testing.assert_array_equal(numbers(sent)[chosen], given[chosen])
    np.testing.assert_allclose(numbers(sent) + numbers(left), given, atol=1e-6)
    apply = jax.jit(jax.vmap(lambda key: free.apply(update(), (), key)[0]))
    many = apply(jax.random.split(jax.random.key(2), 4000))
    many = of_rows(many.params, 4000)
    drawn = np.sum(many[:, given != 0] != 0, axis=0)
    np.testing.assert_allclose(drawn / 4000, count / NUMBERS, atol=0.03)
    np.testing.assert_allclose(many.mean(axis=0), given, atol=0.12 * np.abs(given).max())
    assert plain(feedback) and plain(free)
    expected = 4 * count + 8 + STATISTICS
    assert free.bytes_up(update(), 0) == feedback.bytes_up(update(), 0) == expected


def of_many(transform, count=4000):
    apply = jax.jit(jax.vmap(lambda key: transform.apply(update(), (), key)[0]))
    found = apply(jax.random.split(jax.random.key(2), count))
    return of_rows(found.params, count)


def of_rows(tree, count):
    return np.concatenate([np.reshape(x, (count, -1)) for x in jax.tree.leaves(tree)], axis=1)


def test_qsgd_keeps_the_mean_and_sends_levels_of_the_norm():
    found, given = of_many(qsgd(QSGDConfig(3))), numbers(update())
    norm = np.linalg.norm(given)
    levels = found * 3 / norm
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    assert set(np.unique(np.round(levels))) <= {-3, -2, -1, 0, 1, 2, 3}
    share = 3 * np.abs(given) / norm
    np.testing.assert_allclose(found.mean(axis=0), given, atol=5 * norm / 3 / 2 / np.sqrt(4000))
    variance = (norm / 3) ** 2 * (share - np.floor(share)) * (1 - share + np.floor(share))
    np.testing.assert_allclose(found.var(axis=0), variance, atol=0.02 * norm**2)
    for levels, bits in ((3, 3), (15, 5)):
        expected = math.ceil(NUMBERS * bits / 8) + 4 + STATISTICS
        assert qsgd(QSGDConfig(levels)).bytes_up(update(), 0) == expected
    assert plain(qsgd(QSGDConfig(3)))
    # The norm of one number may be a little less than that number: there is no level beyond.
    one = Model({"a": jnp.float32([0.3, 0.0])}, {})
    keys = jax.random.split(jax.random.key(3), 2000)
    sent = jax.vmap(lambda key: qsgd(QSGDConfig(3)).apply(one, (), key)[0].params["a"][0])(keys)
    np.testing.assert_allclose(sent, 0.3, rtol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_rounding_keeps_the_mean_and_the_ends_of_every_array(bits):
    transform = quantize(QuantizeConfig(bits))
    found = of_many(transform)
    start = 0
    for leaf in jax.tree.leaves(update().params):
        x = np.ravel(leaf)
        part = found[:, start : start + x.size]
        step = (x.max() - x.min()) / (2**bits - 1)
        start += x.size
        if step == 0:
            np.testing.assert_array_equal(part, np.tile(x, (len(part), 1)))
            continue
        level = (part - x.min()) / step
        np.testing.assert_allclose(level, np.round(level), atol=1e-3)
        assert level.min() > -0.1 and level.max() < 2**bits - 0.9
        # No further than a step from the number, and right on average.
        assert np.abs(part - x).max() <= step * 1.001
        np.testing.assert_allclose(part.mean(axis=0), x, atol=5 * step / 2 / np.sqrt(4000))
    expected = sum(math.ceil(n * bits / 8) + 8 for n in (72, 10, 5)) + STATISTICS
    assert transform.bytes_up(update(), 0) == expected and plain(transform)


def test_equal_arrays_are_rounded_independently():
    x = jnp.linspace(0.0, 1.0, 50)
    sent, _ = quantize(QuantizeConfig(1)).apply(Model({"a": x, "b": x}, {}), (), jax.random.key(0))
    assert np.any(sent.params["a"] != sent.params["b"])


def test_powersgd_finds_a_matrix_of_low_rank_and_sends_what_is_left_later():
    transform, key = powersgd(PowerSGDConfig(2)), jax.random.key(0)
    rng = np.random.default_rng(5)
    low = (rng.normal(size=(12, 2)) @ rng.normal(size=(2, 6))).astype(np.float32)
    exact = Model({"a": jnp.asarray(low.reshape(3, 4, 6)), "b": jnp.arange(5.0)}, {})
    state = transform.init(jax.tree.map(jnp.zeros_like, exact))
    sent, (left, _) = jax.jit(transform.apply)(exact, state, key)
    chex.assert_trees_all_close(sent, exact, atol=1e-5)
    assert np.abs(numbers(left)).max() < 1e-5
    # Another one, against NumPy: one step of subspace iteration, then what was left.
    given = update()
    state = transform.init(jax.tree.map(jnp.zeros_like, given))
    right, left = np.asarray(state[1][0], float), np.zeros((12, 6))
    for _ in range(3):
        sent, state = jax.jit(transform.apply)(given, state, key)
        matrix = np.asarray(given.params["a"], float).reshape(12, 6) + left
        basis, _ = np.linalg.qr(matrix @ right)
        right = matrix.T @ basis
        left = matrix - basis @ right.T
        np.testing.assert_allclose(
            np.reshape(sent.params["a"], (12, 6)), basis @ right.T, atol=1e-4
        )
        np.testing.assert_array_equal(sent.params["b"], given.params["b"])
    assert transform.bytes_up(given, 0) == 4 * (2 * (12 + 6) + 10 + 5 + 7)


@pytest.mark.parametrize(
    ("name", "devices", "chunk", "memory"),
    [("top_k", 2, 2, "host"), ("powersgd", 1, 3, "device"), ("quantize", 2, 1, "device")],
)
def test_a_compressed_round_is_that_of_a_plain_loop(two_layers, name, devices, chunk, memory):
    config = dataclasses.replace(WITH_DROPOUT, aggregation=AggregationConfig(transforms=(name,)))
    algorithm = algorithm_of(config)
    (transform,) = algorithm.transforms
    run, (state, data, shared, key) = two_layers.round(algorithm, devices, chunk, config, memory)
    by_hand = ByHand(two_layers, config)
    kept = {}
    for number in range(3):
        before = host(state.model)
        state, metrics = run(state, data, shared, key)
        clients, sent = reported(metrics), []
        for client in clients:
            given = minus(by_hand.train(before, data, key, number, client), before)
            last = kept.get(client, transform.init(jax.tree.map(jnp.zeros_like, given)))
            own_key = by_hand.key(key, 6, number, client, 0)
            one, kept[client] = transform.apply(given, last, own_key)
            sent.append(host(one))
        sizes = [SIZES[c] for c in clients]
        average = combine(lambda x, w=sizes: np.average(x, axis=0, weights=w), *sent)
        chex.assert_trees_all_close(host(state.model), plus(before, average), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("devices", "chunk"), [(1, 2), (2, 1)])
def test_the_majority_of_signs_is_voted_for(two_layers, devices, chunk):
    signs = AggregationConfig("majority_sign", settings={"majority_sign": {"step": 0.01}})
    config = dataclasses.replace(WITH_DROPOUT, aggregation=signs)
    algorithm = algorithm_of(config)
    run, (state, data, shared, key) = two_layers.round(algorithm, devices, chunk, config)
    numbers_of_model = len(numbers(state.model))
    traffic = make_traffic(algorithm, state, data)
    assert traffic.up == math.ceil(numbers_of_model / 8) + 4 * 12
    before, by_hand = host(state.model), ByHand(two_layers, config)
    state, metrics = run(state, data, shared, key)
    trained = [by_hand.train(before, data, key, 0, c) for c in reported(metrics)]
    updates = [minus(model, before) for model in trained]
    votes = combine(lambda x: 0.01 * np.sign(np.sign(x).sum(axis=0)), *updates)
    # Running statistics are averaged, all clients alike.
    means = combine(lambda x: x.mean(axis=0), *updates)
    expected = plus(before, votes._replace(batch_stats=means.batch_stats))
    chex.assert_trees_all_close(host(state.model), expected, rtol=1e-6, atol=1e-7)


def test_what_is_no_number_has_no_vote():
    given = np.float32([[1, -2, 3], [np.nan, -1, np.nan], [-2, np.nan, np.inf], [0, 0, 0]])
    aggregator = majority_sign(MajoritySignConfig(0.5))
    sent = jax.vmap(lambda x: aggregator.encode(Model({"a": x}, {}), (), None))(given)
    present = jnp.array([True, True, True, False])
    zeros = aggregator.init(Model({"a": jnp.zeros(3)}, {}))
    totals = aggregator.add(zeros, Updates(sent, present / 3, present))
    np.testing.assert_array_equal(aggregator.finish(totals, None).params["a"], [0, -0.5, 0.5])


def test_rows_of_a_sketch_have_hashes_of_their_own():
    places, signs = hashes(0, 3, 10, 2000)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.mean(places[i] == places[j]) == pytest.approx(0.1, abs=0.03)
        assert np.mean(signs[i] == signs[j]) == pytest.approx(0.5, abs=0.05)


def sketched(vector, places, signs, columns):
    """A count sketch, number by number."""
    table = np.zeros((len(places), columns))
    for row, (own, sign) in enumerate(zip(places, signs, strict=True)):
        for j, x in enumerate(vector):
            table[row, own[j]] += sign[j] * x
    return table


@pytest.mark.parametrize(("devices", "chunk"), [(1, 2), (2, 1)])
def test_the_largest_numbers_are_read_from_the_sum_of_sketches(two_layers, devices, chunk):
    settings = {"share": 0.5, "rows": 3, "kept": 0.1}
    chosen = AggregationConfig("count_sketch", settings={"count_sketch": settings})
    config = dataclasses.replace(WITH_DROPOUT, aggregation=chosen)
    algorithm = algorithm_of(config)
    run, (state, data, shared, key) = two_layers.round(algorithm, devices, chunk, config)
    size = len(numbers(state.model))
    columns, count = math.ceil(0.5 * size / 3), math.ceil(0.1 * size)
    assert make_traffic(algorithm, state, data).up == 4 * 3 * columns + 4 * 12
    seed = int(host_generator(config.seed, HostStream.SKETCH).integers(2**31))
    places, signs = map(np.asarray, hashes(seed, 3, columns, size))
    assert places.min() == 0 and places.max() == columns - 1 and set(np.unique(signs)) == {-1, 1}
    by_hand, held = ByHand(two_layers, config), np.zeros((3, columns))
    for number in range(3):
        before = host(state.model)
        state, metrics = run(state, data, shared, key)
        clients = reported(metrics)
        given = [minus(by_hand.train(before, data, key, number, c), before) for c in clients]
        weights = np.array([SIZES[c] for c in clients]) / sum(SIZES[c] for c in clients)
        mean = sum(w * numbers(each) for w, each in zip(weights, given, strict=True))
        running = combine(lambda x, w=weights: np.average(x, axis=0, weights=w), *given)
        held += sketched(mean, places, signs, columns)
        told = np.median([signs[r] * held[r, places[r]] for r in range(3)], axis=0)
        moved = minus(host(state.model), before)
        np.testing.assert_allclose(
            moved.batch_stats["mean"], running.batch_stats["mean"], rtol=1e-4, atol=1e-6
        )
        found = numbers(moved)
        # Which of nearly equal numbers is read, rounding may decide: so those that were.
        read = np.abs(found) > 0
        assert read.sum() <= count
        least = np.sort(np.abs(told))[-count]
        assert np.all(np.abs(told)[read] > 0.999 * least - 1e-7)
        np.testing.assert_allclose(found[read], told[read], rtol=1e-3, atol=2e-6)
        for row in range(3):
            held[row, places[row, read]] = 0
        np.testing.assert_allclose(state.aggregator[0], held, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"aggregation": AggregationConfig(transforms=("top_k", "quantize"))},
            "top_k and quantize do not go together",
        ),
        (
            {"aggregation": AggregationConfig("secure", transforms=("top_k",))},
            "top_k and secure do not go together",
        ),
        (
            {"aggregation": AggregationConfig("secure", settings={"secure": {"bound": 200.0}})},
            r"secure.fraction_bits must be such that no sum leaves 32 bits: .* at most 23, got 24",
        ),
    ],
)
def test_what_makes_no_sense_together_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_compression_before_local_noise_is_refused():
    with pytest.raises(ConfigError, match=r"top_k and privacy.*local do not go together"):
        dataclasses.replace(
            CONFIG,
            model=ModelConfig(norm="group"),
            privacy=PrivacyConfig("local", noise_multiplier=1.0),
            aggregation=AggregationConfig(transforms=("top_k",)),
        )
