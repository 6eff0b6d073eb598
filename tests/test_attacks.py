"""Attacks in a round, against clients trained one by one and changed in NumPy."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.attacks.base import Attack, draw_attackers
from semanticfl_jax.config import (
    AggregationConfig,
    AlgorithmConfig,
    AttackConfig,
    AvailabilityConfig,
    ConfigError,
    ExperimentConfig,
    RuntimeConfig,
)
from semanticfl_jax.data.federated import pad_batches
from semanticfl_jax.federated.aggregation import updates_in_bytes
from semanticfl_jax.federated.evaluation import with_trigger
from semanticfl_jax.simulation import experiment
from tests.federated.by_hand import ByHand, combine, host, minus, plus, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    SIZES,
    SoftmaxRegression,
    algorithm_of,
    make_federation,
    noise_images,
)


def attacked(name, settings=None, aggregation=None, share=0.4, **changes):
    return dataclasses.replace(
        CONFIG,
        attack=AttackConfig(name, share, settings),
        aggregation=aggregation or AggregationConfig(),
        availability=AvailabilityConfig(dropout=0.2),
        **changes,
    )


#: The attackers of `tests.federation`, whose key is not the seed's.
WHO = np.asarray(draw_attackers(Attack("sign_flip", 3), jax.random.key(7), len(SIZES)))


@pytest.fixture(scope="module")
def federation():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


def rounds_of(federation, config, devices, chunk, count=3):
    run, (state, *rest) = federation.round(algorithm_of(config), devices, chunk, config)
    for number in range(count):
        before = host(state.model)
        state, metrics = run(state, *rest)
        yield number, before, host(state.model), reported(metrics), rest[0], rest[2]


def average(clients, updates):
    sizes = [SIZES[c] for c in clients]
    return combine(lambda x: np.average(x, axis=0, weights=sizes), *updates)


def check(federation, config, devices, chunk, changed, aggregate=average):
    """Compare rounds with `changed(honest updates, clients, key, number)`."""
    by_hand, seen = ByHand(federation, CONFIG), set()
    for number, before, after, clients, data, key in rounds_of(federation, config, devices, chunk):
        updates = [minus(by_hand.train(before, data, key, number, c), before) for c in clients]
        keys = [by_hand.key(key, 10, number, c) for c in clients]
        expected = plus(before, aggregate(clients, changed(updates, clients, keys)))
        chex.assert_trees_all_close(after, expected, rtol=1e-4, atol=1e-5)
        seen |= {bool(WHO[c]) for c in clients}
    assert seen == {True, False}, "some must attack and some not"


def test_attackers_are_a_share_drawn_by_the_seed():
    attack = algorithm_of(attacked("gaussian")).attack
    assert attack.count == WHO.sum() == 3 and WHO.shape == (7,)
    drawn = {tuple(map(bool, draw_attackers(attack, jax.random.key(s), 7))) for s in range(5)}
    assert len(drawn) > 1 and {sum(each) for each in drawn} == {3}


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (2, 1)])
def test_sign_flip_sends_updates_backwards(federation, devices, chunk):
    def changed(updates, clients, keys):
        return [
            jax.tree.map(lambda x: -3 * x, u) if WHO[c] else u
            for u, c in zip(updates, clients, strict=True)
        ]

    check(federation, attacked("sign_flip", {"scale": 3}), devices, chunk, changed)


@pytest.mark.parametrize("name", ["gaussian", "free_rider"])
def test_noise_takes_the_place_of_updates(federation, name):
    drawn = []

    def changed(updates, clients, keys):
        result = []
        for u, c, key in zip(updates, clients, keys, strict=True):
            if WHO[c]:
                leaves, form = jax.tree.flatten(u)
                noise = [
                    0.5 * np.asarray(jax.random.normal(jax.random.fold_in(key, i), x.shape))
                    for i, x in enumerate(leaves)
                ]
                drawn.extend(np.concatenate([np.ravel(x) for x in noise]))
                u = jax.tree.unflatten(form, noise)
            result.append(u)
        return result

    check(federation, attacked(name, {"spread": 0.5}), 2, 2, changed)
    assert abs(np.std(drawn) - 0.5) < 0.1 and len(set(drawn)) == len(drawn)


def test_free_riders_send_nothing_by_default(federation):
    def changed(updates, clients, keys):
        return [
            jax.tree.map(np.zeros_like, u) if WHO[c] else u
            for u, c in zip(updates, clients, strict=True)
        ]

    check(federation, attacked("free_rider"), 1, 1, changed)


def honest_of(updates, clients):
    return [u for u, c in zip(updates, clients, strict=True) if not WHO[c]]


def ipm_by_hand(updates, clients, keys):
    wrong = jax.tree.map(lambda *x: -0.7 * np.mean(x, axis=0), *honest_of(updates, clients))
    return [wrong if WHO[c] else u for u, c in zip(updates, clients, strict=True)]


def alie_by_hand(updates, clients, keys):
    n, f = len(clients), sum(WHO[c] for c in clients)
    supporters = int(n / 2 + 1) - f
    z = norm.ppf(np.clip((n - f - supporters) / (n - f), 0.5, 0.999))
    wrong = jax.tree.map(
        lambda *x: np.mean(x, axis=0) - z * np.std(x, axis=0), *honest_of(updates, clients)
    )
    return [wrong if WHO[c] else u for u, c in zip(updates, clients, strict=True)]


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (2, 1)])
@pytest.mark.parametrize(
    ("config", "by_hand"),
    [(attacked("ipm", {"scale": 0.7}), ipm_by_hand), (attacked("alie"), alie_by_hand)],
    ids=["ipm", "alie"],
)
def test_those_who_collude_know_the_honest_updates(federation, config, by_hand, devices, chunk):
    check(federation, config, devices, chunk, by_hand)
    _, (state, *_) = federation.round()
    assert updates_in_bytes(algorithm_of(config), state.model, 5) > 0
    assert updates_in_bytes(FEDAVG, state.model, 5) == 0


def test_alie_goes_as_far_as_it_is_told():
    collude = algorithm_of(attacked("alie", {"scale": 1.5})).attack.collude
    x, attackers = np.float32([[1.0], [3.0], [8.0], [9.0]]), np.array([0, 0, 1, 0], bool)
    present = np.array([1, 1, 1, 0], bool)
    found = collude(Updates({"x": x}, present / 3, present), attackers)
    np.testing.assert_allclose(found["x"], [2.0 - 1.5 * 1.0], rtol=1e-6)


def test_what_colludes_is_bounded_and_combined_by_the_aggregator(federation):
    bound = AggregationConfig("norm_bound", settings={"norm_bound": {"max_norm": 0.3}})

    def changed(updates, clients, keys):
        sent = ipm_by_hand(updates, clients, keys)
        norms = [np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(u))) for u in sent]
        return [
            jax.tree.map(lambda x, n=n: x * min(1, 0.3 / n), u)
            for u, n in zip(sent, norms, strict=True)
        ]

    check(federation, attacked("ipm", {"scale": 0.7}, bound), 2, 1, changed)

    def median(clients, updates):
        return combine(lambda x: np.median(x, axis=0), *updates)

    robust = attacked("ipm", {"scale": 0.7}, AggregationConfig("median"))
    check(federation, robust, 1, 1, ipm_by_hand, median)


@pytest.mark.parametrize("name", ["label_flip", "backdoor"])
def test_poisoned_data_are_learned_by_attackers_alone(federation, name):
    settings = {"size": 2, "target": 1, "poisoned": 0.5} if name == "backdoor" else None
    images, labels = federation.images.copy(), federation.labels.copy()
    chosen = np.zeros(len(labels), bool)
    for client in np.flatnonzero(WHO):
        start, end = federation.partition.offsets[client : client + 2]
        chosen[federation.partition.indices[start:end]] = True
    if name == "label_flip":
        labels[chosen] = CLASSES - 1 - labels[chosen]
    else:
        hashed = (np.arange(len(labels), dtype=np.uint64) * 2654435761) % 2**32
        assert 0 < np.sum(chosen & (hashed < 2**31)) < np.sum(chosen)
        chosen &= hashed < 2**31
        images[chosen, -2:, -2:], labels[chosen] = 255, 1
    config = attacked(name, settings)
    poisoned = dataclasses.replace(federation, images=images, labels=labels)
    plain = dataclasses.replace(config, attack=AttackConfig())
    expected = rounds_of(poisoned, plain, 1, 1)
    for found, wanted in zip(rounds_of(federation, config, 2, 1), expected, strict=True):
        chex.assert_trees_all_close(found[2], wanted[2], rtol=1e-4, atol=1e-5)


def test_a_backdoor_scales_what_it_sends():
    attack = algorithm_of(attacked("backdoor", {"scale": 4.0})).attack
    np.testing.assert_array_equal(attack.forge({"x": jnp.arange(3.0)}, None)["x"], [0, 4, 8])
    assert algorithm_of(attacked("backdoor")).attack.forge is None


def test_the_success_of_a_backdoor_is_of_the_other_classes_alone():
    attack = algorithm_of(attacked("backdoor", {"size": 2, "target": 1})).attack
    images, labels = np.zeros((5, 8, 8, 3), np.uint8), np.array([1, 0, 1, 2, 3], np.int32)
    found = with_trigger(attack, pad_batches(images, labels, 3, 1))
    np.testing.assert_array_equal(np.ravel(found.mask), [0, 1, 0, 1, 1, 0])
    corners = np.reshape(found.images, (6, 8, 8, 3))[:, -2:, -2:]
    assert np.all(found.labels == 1) and np.all(corners == 255)


def test_the_success_of_a_backdoor_is_measured(tmp_path):
    world = noise_images(240, 40, below=200)
    config = ExperimentConfig(
        dataset="digits",
        num_clients=4,
        clients_per_round=4,
        rounds=3,
        local_epochs=3,
        batch_size=8,
        public_per_class=0,
        augmentation=(),
        learning_rate=0.2,
        attack=AttackConfig("backdoor", 1.0, {"size": 4, "target": 2, "poisoned": 1.0}),
        runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
    )
    result = experiment.run(
        config, dataset=world, model=SoftmaxRegression(CLASSES), say=None, progress=False
    )
    images, labels = world.test_images.copy(), world.test_labels
    images[:, -4:, -4:] = 255
    found = result.predict(images[labels != 2])
    assert result.history[-1]["attack_success"] == pytest.approx(np.mean(found == 2))
    assert result.summary["final_attack_success"] == result.history[-1]["attack_success"] > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attack": AttackConfig("sign_flip"), "algorithm": AlgorithmConfig("scaffold")},
            "attack.name=sign_flip cannot be used with algorithm.name=scaffold: .* stay honest",
        ),
        ({"attack": AttackConfig("none", share=0.3)}, "attack.share is set, but attack.name is no"),
        (
            {"aggregation": AggregationConfig("fltrust"), "public_per_class": 0},
            "public_per_class must be at least 1 with aggregation.aggregator=fltrust",
        ),
        (
            {"aggregation": AggregationConfig("fltrust"), "algorithm": AlgorithmConfig("fedcda")},
            "fltrust cannot be used with algorithm.name=fedcda",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ExperimentConfig(**changes)
    if "algorithm" in changes and "attack" in changes:
        ExperimentConfig(**{**changes, "attack": AttackConfig("label_flip")})
