"""Private rounds, against NumPy over clients trained one by one."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import complete
from semanticfl_jax.algorithms.aggregators import Updates, mean
from semanticfl_jax.algorithms.transforms import clipped
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.config import AvailabilityConfig, LocalConfig, ModelConfig, PrivacyConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.federated.sampling import draw_cohort
from semanticfl_jax.privacy.accounting import make_ledger
from semanticfl_jax.privacy.central import split_noise
from semanticfl_jax.privacy.dp_ftrl import coefficients
from semanticfl_jax.privacy.mechanism import with_noise
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    SIZES,
    SoftmaxRegression,
    algorithm_of,
    make_federation,
)

CLIP, NOISE, COHORT = 0.4, 0.8, CONFIG.clients_per_round


def private(name="central", settings=None, noise=NOISE, sampling="uniform", **changes):
    return dataclasses.replace(
        CONFIG,
        model=ModelConfig(norm="group"),
        availability=AvailabilityConfig(sampling=sampling, dropout=0.3),
        privacy=PrivacyConfig(name, noise_multiplier=noise, settings=settings),
        **changes,
    )


@pytest.fixture(scope="module")
def federation():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


def length(update):
    return np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(update)))


def cut(update, norm=CLIP):
    return jax.tree.map(lambda x: x * min(1, norm / length(update)), update)


def updates_by_hand(by_hand, before, data, key, number, metrics):
    return [
        minus(by_hand.train(before, data, key, number, client), before)
        for client in reported(metrics)
    ]


def numbers(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.fixture(scope="module")
def central_rounds(federation):
    """The models after each of four rounds, on one device, client by client."""
    config = private(sampling="poisson", settings={"clip": CLIP})
    return list(rounds_of(federation, config, 1, 1, "device", 4))


def rounds_of(federation, config, devices, chunk, memory, count):
    run, start = federation.round(algorithm_of(config), devices, chunk, config, memory)
    state, *rest = start
    for number in range(count):
        before = host(state.model)
        state, metrics = run(state, *rest)
        yield number, before, host(state.model), host(metrics), host(state.aggregator), rest


def test_a_central_round_is_the_clipped_sum_over_m_with_noise(federation, central_rounds):
    by_hand = ByHand(federation, private())
    noises, counts, lengths = [], set(), []
    for number, before, after, metrics, _, (data, _, key) in central_rounds:
        updates = updates_by_hand(by_hand, before, data, key, number, metrics)
        counts.add(len(updates))
        lengths += list(map(length, updates))
        # Divided by m, however many took part.
        expected = combine(lambda x: x.sum(axis=0) / COHORT, *map(cut, updates))
        noise = numbers(minus(minus(after, before), expected)) / (NOISE * CLIP / COHORT)
        # What is left is the noise of the stream AGGREGATOR in this round, and of no other.
        drawn = with_noise(by_hand.key(key, 7, number), jax.tree.map(jnp.zeros_like, before), 1.0)
        np.testing.assert_allclose(noise, numbers(drawn), atol=1e-3)
        noises.append(noise)
    assert len(counts) > 1 and min(lengths) < CLIP < max(lengths)
    noises = np.array(noises)
    assert abs(noises.mean()) < 4 / np.sqrt(noises.size)
    assert abs(noises.std() - 1) < 4 / np.sqrt(2 * noises.size)
    np.testing.assert_allclose(np.corrcoef(noises), np.eye(4), atol=4 / np.sqrt(noises.shape[1]))


@pytest.mark.parametrize(("devices", "chunk"), [(2, 1), (2, 2), (8, 1)])
def test_a_central_round_does_not_depend_on_devices_or_chunks(
    federation, central_rounds, devices, chunk
):
    config = private(sampling="poisson", settings={"clip": CLIP})
    for (*_, expected, _, _, _), (*_, found, _, _, _) in zip(
        central_rounds, rounds_of(federation, config, devices, chunk, "device", 4), strict=True
    ):
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-6)


def test_noise_is_added_in_a_round_in_which_nobody_reports(federation):
    config = private(sampling="poisson", clients_per_round=1)
    rounds = list(rounds_of(federation, config, 1, 1, "device", 6))
    empty = [(before, after) for _, before, after, m, *_ in rounds if not m.reported.any()]
    assert empty, "nobody must report in some round"
    for before, after in empty:
        assert np.all(numbers(before) != numbers(after))


def test_clipping_follows_the_quantile_of_the_norms(federation):
    settings = {"clip": CLIP, "adaptive": True, "quantile": 0.3, "clip_rate": 0.7}
    config, count_noise = private(settings={**settings, "count_noise": 1.5}), 1.5
    by_hand, clip = ByHand(federation, config), CLIP
    of_update = (NOISE**-2 - (2 * count_noise) ** -2) ** -0.5
    assert split_noise(NOISE, count_noise) == pytest.approx(of_update)
    for number, before, after, metrics, kept, (data, _, key) in rounds_of(
        federation, config, 2, 2, "device", 3
    ):
        updates = updates_by_hand(by_hand, before, data, key, number, metrics)
        of_sum, of_count = jax.random.split(by_hand.key(key, 7, number))
        mean = combine(lambda x: x.sum(axis=0) / COHORT, *(cut(u, clip) for u in updates))
        noise = with_noise(of_sum, jax.tree.map(jnp.zeros_like, mean), of_update * clip / COHORT)
        expected = plus(plus(before, mean), host(noise))
        chex.assert_trees_all_close(after, expected, rtol=1e-4, atol=1e-6)
        left = sum((length(u) <= clip) - 0.5 for u in updates)
        left = 0.5 + (left + count_noise * float(jax.random.normal(of_count))) / (0.7 * COHORT)
        clip = clip * np.exp(-0.7 * (left - 0.3))
        np.testing.assert_allclose(kept, clip, rtol=1e-5)
        np.testing.assert_allclose(metrics.figures["clip"], clip, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_noise_is_that_of_the_cohort_for_which_a_run_stands(federation, adaptive):
    larger, after = 20 * COHORT, []
    settings = {"clip": CLIP, "adaptive": adaptive}
    for cohort in (0, larger):
        config = private(settings=settings | ({"count_noise": 1.5} if adaptive else {}))
        stands_for = {"population": 1000 * (cohort > 0), "noise_cohort": cohort}
        mechanism = dataclasses.replace(config.privacy, **stands_for)
        config = dataclasses.replace(config, privacy=mechanism)
        *_, last = rounds_of(federation, config, 1, 1, "device", 1)
        _, before, model, metrics, clip, (data, _, key) = last
        updates = updates_by_hand(ByHand(federation, config), before, data, key, 0, metrics)
        mean = combine(lambda x: x.sum(axis=0) / COHORT, *map(cut, updates))
        after.append((numbers(minus(minus(model, before), mean)), clip, updates))
    (noise, clip, updates), (less, clip_of_more, _) = after
    np.testing.assert_allclose(less, noise / 20, atol=1e-6)
    if adaptive:
        # What a count of the same bits with less noise makes of the clipping norm.
        left = sum((length(u) <= CLIP) - 0.5 for u in updates) / (0.7 * COHORT)

        def noise_of(clip):
            counted = 0.5 - np.log(clip / CLIP) / 0.2  # the quantile, and how C followed it
            return counted - (0.5 + left)

        np.testing.assert_allclose(noise_of(clip_of_more), noise_of(clip) / 20, atol=1e-5)


def standing_for(config, population, cohort):
    mechanism = dataclasses.replace(config.privacy, population=population, noise_cohort=cohort)
    return algorithm_of(dataclasses.replace(config, privacy=mechanism)).aggregator


def test_banded_noise_is_that_of_the_cohort_for_which_a_run_stands():
    found, zeros = [], {"x": jnp.zeros(50)}
    settings, options = {"clip": CLIP, "bands": 2}, {"clients_per_round": 2}
    config = private("dp_ftrl", settings, sampling="round_robin", **options)
    for stands_for in ((0, 0), (1000, 40)):
        aggregator = standing_for(config, *stands_for)
        start = aggregator.start(zeros)
        found.append(aggregator.finish(zeros, jax.random.key(0), start)[0]["x"])
    np.testing.assert_allclose(found[1], found[0] / 20, rtol=1e-5)


@pytest.mark.parametrize(("cohort", "expected"), [(5, 0.8), (1000, 50.0)])
def test_the_count_has_a_twentieth_of_the_cohort_as_noise_or_that_of_the_update(cohort, expected):
    found = []
    for given in ({}, {"count_noise": expected}):
        config = private(settings={"clip": CLIP, "adaptive": True, **given})
        total = {"x": jnp.zeros(9)}, jnp.zeros(())
        aggregator = standing_for(config, 10_000, cohort)
        found.append(aggregator.finish(total, jax.random.key(0), jnp.float32(CLIP)))
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_high_quantile_is_reached_whoever_drops_out(dropout):
    many = {"num_clients": 400, "clients_per_round": 400}
    config = private(settings={"adaptive": True, "quantile": 0.9, "clip": 0.5}, **many)
    config = dataclasses.replace(config, availability=AvailabilityConfig(dropout=dropout))
    aggregator = algorithm_of(config).aggregator
    lengths, rng = jnp.arange(1, 401) / 400, np.random.default_rng(0)
    clients = Updates({"x": lengths[:, None]}, jnp.ones(400) / 400, None)

    @jax.jit
    def one(clip, present, key):
        sent = jax.vmap(lambda update: aggregator.encode(update, clip, None))(clients.update)
        sent = jax.tree.map(lambda x: jnp.where(rows(present, x), x, 0.0), sent)
        shapes = jax.tree.map(lambda x: x[0], sent)
        total = aggregator.add(aggregator.init(shapes), clients._replace(update=sent))
        return aggregator.finish(total, key, clip)[1]

    clip, last = aggregator.start(None), []
    for number in range(120):
        clip = one(clip, jnp.asarray(rng.random(400) >= dropout), jax.random.key(number))
        last.append(float(clip))
    assert np.mean(last[60:]) == pytest.approx(0.9, abs=0.03)


def test_a_count_that_would_cost_more_than_both_may_is_refused(federation):
    settings = {"adaptive": True, "count_noise": 0.3}
    with pytest.raises(SemanticFLError, match=r"count_noise must be above half .*, 0\.4: .* 0\.3;"):
        algorithm_of(private(settings=settings))


def test_noise_is_for_the_mean_alone_whatever_another_is_called():
    """Its sensitivity is that of a sum of clipped updates."""
    doubled = dataclasses.replace(mean(), finish=lambda total, key: 2 * total)
    context = AlgorithmContext(private(), CLASSES, None)
    with pytest.raises(SemanticFLError, match="fedavg has the aggregator mean, and noise"):
        complete(dataclasses.replace(algorithm_of(CONFIG), aggregator=doubled), context)


@pytest.mark.parametrize(("devices", "chunk", "memory"), [(1, 1, "device"), (2, 2, "host")])
def test_a_local_round_is_the_mean_of_noisy_reports(federation, devices, chunk, memory):
    config = private("local", LocalConfig(CLIP))
    by_hand, noises = ByHand(federation, config), []
    for number, before, after, metrics, _, (data, _, key) in rounds_of(
        federation, config, devices, chunk, memory, 3
    ):
        sent = []
        for client in reported(metrics):
            update = cut(minus(by_hand.train(before, data, key, number, client), before))
            own_key = by_hand.key(key, 6, number, client, 0)  # its first transform
            noise = with_noise(own_key, jax.tree.map(jnp.zeros_like, update), NOISE * CLIP)
            noises.append(numbers(host(noise)) / (NOISE * CLIP))
            sent.append(plus(update, host(noise)))
        expected = plus(before, combine(lambda x: x.mean(axis=0), *sent))
        chex.assert_trees_all_close(after, expected, rtol=1e-4, atol=1e-6)
    noises = np.array(noises)
    assert abs(noises.std() - 1) < 4 / np.sqrt(2 * noises.size)
    assert len(np.unique(noises[:, 0])) == len(noises)


def test_an_update_that_is_not_a_number_cannot_go_around_the_bound():
    for bad in (np.nan, np.inf):
        found, _ = clipped({"x": jnp.array([1.0, bad]), "y": jnp.ones(2)}, 1.0)
        np.testing.assert_array_equal(numbers(found), np.zeros(4))


def test_poisson_sampling_draws_every_client_by_itself():
    clients, mean = 40, 6
    config = dataclasses.replace(
        CONFIG,
        num_clients=clients,
        clients_per_round=mean,
        availability=AvailabilityConfig(sampling="poisson"),
    )
    places, sizes = cohort_places(config), jnp.ones(clients, jnp.int32)
    key = jax.random.key(3)
    draw = jax.vmap(lambda r, most: draw_cohort("poisson", key, r, sizes, mean, most), (0, None))
    rounds = 3000
    drawn = np.asarray(jax.jit(draw, static_argnums=1)(jnp.arange(rounds), places))
    there = np.zeros((rounds, clients + 1), bool)
    there[np.arange(rounds)[:, None], drawn] = True  # -1 goes to the last column
    there, share = there[:, :-1], mean / clients
    np.testing.assert_array_equal(there.sum(1), (drawn >= 0).sum(1))  # nobody twice
    error = np.sqrt(share * (1 - share) / rounds)
    np.testing.assert_allclose(there.mean(0), share, atol=4.5 * error)
    np.testing.assert_allclose(there.sum(1).var(), clients * share * (1 - share), rtol=0.15)
    np.testing.assert_allclose(np.corrcoef(there.T), np.eye(clients), atol=5 / np.sqrt(rounds))
    # A cohort that is cut is a random part of itself.
    few = np.asarray(jax.jit(draw, static_argnums=1)(jnp.arange(rounds), 3))
    for whole, part in zip(drawn, few, strict=True):
        assert set(part) <= set(whole) | {-1}
    counts = np.bincount(few[few >= 0], minlength=clients)
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=5 / np.sqrt(counts.mean()))


def banded_rounds(federation, rounds, devices=1, chunk=1, **settings):
    config = private(
        "dp_ftrl", {"clip": CLIP, **settings}, sampling="round_robin", clients_per_round=2
    )
    config = dataclasses.replace(config, rounds=rounds)
    return config, list(rounds_of(federation, config, devices, chunk, "device", rounds))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (2, 1)])
def test_banded_noise_is_the_inverse_matrix_applied_to_fresh_noise(federation, devices, chunk):
    config, rounds = banded_rounds(federation, 6, devices, chunk, bands=3)
    by_hand, fresh, noises = ByHand(federation, config), [], []
    for number, before, after, metrics, _, (data, _, key) in rounds:
        updates = updates_by_hand(by_hand, before, data, key, number, metrics)
        summed = combine(lambda x: x.sum(axis=0) / 2, *map(cut, updates)) if updates else 0.0
        moved = minus(after, before)
        left = minus(moved, summed) if updates else moved
        noises.append(numbers(left) / (NOISE * CLIP / 2))
        zeros = jax.tree.map(jnp.zeros_like, before)
        fresh.append(numbers(host(with_noise(by_hand.key(key, 7, number), zeros, 1.0))))
    column = coefficients(6, 3)
    matrix = sum(c * np.eye(6, k=-j) for j, c in enumerate(column))
    np.testing.assert_allclose(matrix @ np.array(noises), np.array(fresh), atol=5e-3)


def test_one_band_is_central_privacy(federation):
    _, banded = banded_rounds(federation, 3, bands=1)
    config = private("central", {"clip": CLIP}, sampling="round_robin", clients_per_round=2)
    central = list(rounds_of(federation, config, 1, 1, "device", 3))
    for found, expected in zip(banded, central, strict=True):
        chex.assert_trees_all_close(found[2], expected[2], rtol=1e-6, atol=1e-7)


def test_banded_noise_costs_what_independent_noise_costs_and_adds_up_to_less():
    rounds, clients, cohort = 24, 7, 2
    config = dataclasses.replace(
        CONFIG,
        rounds=rounds,
        clients_per_round=cohort,
        model=ModelConfig(norm="group"),
        availability=AvailabilityConfig(sampling="round_robin"),
        privacy=PrivacyConfig("dp_ftrl", noise_multiplier=NOISE),
    )
    bands = config.privacy.settings.bands_of(config)
    assert bands == clients // cohort == 3
    column = coefficients(rounds, bands)
    matrix = sum(c * np.eye(rounds, k=-j) for j, c in enumerate(column))
    # Whoever takes turns as the round draws them changes matrix @ updates by sqrt(turns) at most.
    sizes, key = jnp.ones(clients, jnp.int32), jax.random.key(0)
    draw = jax.vmap(lambda r: draw_cohort("round_robin", key, r, sizes, cohort, cohort))
    drawn, most = np.asarray(draw(jnp.arange(rounds))), 0
    for client in range(clients):
        turns = (drawn == client).any(axis=1).astype(float)
        assert np.linalg.norm(matrix @ turns) <= np.sqrt(turns.sum()) + 1e-6
        most = max(most, int(turns.sum()))
    assert make_ledger(config).sampling.count(rounds) == most
    independent = dataclasses.replace(config.privacy, name="central", settings=None)
    central = dataclasses.replace(config, privacy=independent)
    assert make_ledger(config).epsilon(rounds) == make_ledger(central).epsilon(rounds)
    sums = np.tril(np.ones((rounds, rounds)))
    error = np.sqrt(np.mean(np.sum((sums @ np.linalg.inv(matrix)) ** 2, axis=1)))
    alone = np.sqrt(np.mean(np.sum(sums**2, axis=1)))
    assert error < 0.7 * alone


def test_the_noise_of_one_array_tells_nothing_of_anothers():
    one, other = with_noise(jax.random.key(0), [jnp.zeros(500), jnp.zeros(500)], 1.0)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2
    assert np.std(one) == pytest.approx(1, abs=0.1)
