"""Clients whose numbers are not finite: found, named, and left out if that is asked for."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.aggregators import median
from semanticfl_jax.algorithms.base import LossTerm
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.attacks.base import draw_attackers
from semanticfl_jax.config import AvailabilityConfig, ConfigError, from_dict, to_dict
from semanticfl_jax.data.partition import Partition
from tests.federated.by_hand import host
from tests.federation import (
    CLASSES,
    CONFIG,
    SIZES,
    SoftmaxRegression,
    algorithm_of,
    make_federation,
)

BAD = 2  # the client whose images make the loss infinite
EVERYONE = dataclasses.replace(CONFIG, clients_per_round=len(SIZES))
EQUAL = (6,) * 7


def poisoned(algorithm, federation, client=BAD):
    """The algorithm with a term that is infinite on one client's images."""
    owned = federation.partition.indices[slice(*federation.partition.offsets[client : client + 2])]
    rows = np.zeros(len(federation.labels), np.float32)
    rows[owned] = np.inf

    def loss(inputs):
        kernel = inputs.trained["model"]["Dense_0"]["kernel"]
        hit = jnp.sum(jnp.where(inputs.mask, inputs.rows["poison"], 0.0)) > 0
        return jnp.sum(kernel) * jnp.where(hit, jnp.inf, 0.0)

    term = LossTerm(f"poison {client}", loss, per_sample={"poison": jnp.asarray(rows)})
    return algorithm.with_term(term)


def without(federation, *clients):
    """The federation in which those clients have no image."""
    indices, offsets = federation.partition.indices, federation.partition.offsets
    kept = [
        indices[offsets[i] : offsets[i + 1]] if i not in clients else indices[:0]
        for i in range(len(offsets) - 1)
    ]
    sizes = [len(each) for each in kept]
    partition = Partition(np.concatenate(kept), np.concatenate([[0], np.cumsum(sizes)]))
    return dataclasses.replace(federation, partition=partition)


def chosen(name):
    values = {"name": name} if name != "median" else {}
    config = from_dict(type(CONFIG), {**to_dict(EVERYONE), "algorithm": values})
    algorithm = algorithm_of(config)
    if name == "median":
        algorithm = dataclasses.replace(algorithm, aggregator=median())
    # By size: a client without images has no weight then, as one that is left out.
    return config, dataclasses.replace(algorithm, weights=by_size)


WAYS = [
    ("fedavg", SIZES, 1, 1),
    ("fedavg", SIZES, 2, 3),
    ("fedavg", EQUAL, 1, 7),
    ("fednova", SIZES, 1, 3),
    ("scaffold", SIZES, 2, 1),
    ("feddyn", SIZES, 1, 1),
    ("fedcda", SIZES, 1, 1),
    ("fedexp", SIZES, 1, 2),
    ("median", SIZES, 2, 2),
]


@pytest.mark.parametrize(("name", "sizes", "devices", "chunk"), WAYS)
def test_who_diverges_is_left_out_as_if_they_had_no_data(name, sizes, devices, chunk):
    federation = make_federation(SoftmaxRegression(CLASSES), sizes)
    config, algorithm = chosen(name)
    algorithm = poisoned(algorithm, federation)
    run, (state, *rest) = federation.round(algorithm, devices, chunk, config, skip_diverged=True)
    alone, (other, *others) = without(federation, BAD).round(algorithm, 1, 1, config)
    for _ in range(2):
        state, metrics = run(state, *rest)
        other, expected = alone(other, *others)
        named = np.asarray(metrics.cohort)[np.asarray(metrics.diverged)]
        assert named.tolist() == [BAD] and metrics.finite
        np.testing.assert_allclose(metrics.train_loss, expected.train_loss, rtol=1e-5)
        parts = (state.model, state.server, state.clients)
        chex.assert_trees_all_close(
            host(parts), host((other.model, other.server, other.clients)), rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", ["fednova", "fedexp"])
def test_those_who_stay_may_have_no_weight(name):
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    config, algorithm = chosen(name)

    def all_on_one(sizes, label_counts):  # as weights that some clients are cut to 0 by may be
        del label_counts
        return (sizes == SIZES[BAD]).astype(jnp.float32)

    algorithm = dataclasses.replace(poisoned(algorithm, federation), weights=all_on_one)
    run, (state, *rest) = federation.round(algorithm, 1, 3, config, skip_diverged=True)
    before = host(state.model)
    state, metrics = run(state, *rest)
    assert metrics.finite and np.asarray(metrics.diverged).sum() == 1
    chex.assert_trees_all_equal(host(state.model), before)


#: Aggregators that encode updates or are given all of them, privacy, and attackers who collude.
GROUPS = {
    "norm_bound": {"aggregation": {"aggregator": "norm_bound", "norm_bound": {"max_norm": 0.05}}},
    "fltrust": {"aggregation": {"aggregator": "fltrust"}},
    "majority_sign": {"aggregation": {"aggregator": "majority_sign"}},
    "count_sketch": {
        "aggregation": {"aggregator": "count_sketch", "count_sketch": {"share": 0.5, "kept": 0.2}}
    },
    "secure": {"aggregation": {"aggregator": "secure", "secure": {"masks": False}}},
    "private": {
        "model": {"norm": "group"},
        "privacy": {"name": "central", "noise_multiplier": 1.0, "central": {"adaptive": True}},
    },
    "ipm": {"attack": {"name": "ipm", "share": 0.3}},
    "krum and alie": {
        "aggregation": {"aggregator": "multi_krum"},
        "attack": {"name": "alie", "share": 0.3},
    },
}


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (2, 2)])
@pytest.mark.parametrize("name", GROUPS)
def test_so_it_is_whatever_is_made_of_updates(name, devices, chunk):
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    config = from_dict(type(CONFIG), {**to_dict(EVERYONE), **GROUPS[name]})
    public = np.setdiff1d(np.arange(len(federation.labels)), federation.partition.indices)
    algorithm = poisoned(algorithm_of(config), federation)
    options = {"public": public, "skip_diverged": True}
    run, (state, *rest) = federation.round(algorithm, devices, chunk, config, **options)
    alone, (other, *others) = without(federation, BAD).round(algorithm, 1, 1, config, public=public)
    first = host(state.params)
    for _ in range(2):
        state, metrics = run(state, *rest)
        other, expected = alone(other, *others)
        named = np.asarray(metrics.cohort)[np.asarray(metrics.diverged)]
        assert named.tolist() == [BAD] and metrics.finite and not expected.diverged.any()
        chex.assert_trees_all_close(
            host((state.model, state.aggregator)),
            host((other.model, other.aggregator)),
            rtol=2e-5,
            atol=1e-6,
        )
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first, host(state.params))
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize(
    ("attack", "aggregator", "devices", "chunk"),
    [
        ("sign_flip", "mean", 1, 3),
        ("sign_flip", "norm_bound", 2, 2),
        ("alie", "median", 2, 2),
        ("alie", "norm_bound", 1, 3),
    ],
)
def test_who_forges_what_is_not_finite_is_left_out(attack, aggregator, devices, chunk):
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    forging = {"name": attack, "share": 0.3}
    values = {**to_dict(EVERYONE), "aggregation": {"aggregator": aggregator}}
    config = from_dict(type(CONFIG), {**values, "algorithm": {"name": "moon"}, "attack": forging})
    # No configuration takes such a number: forged alone, or agreed on.
    object.__setattr__(config.attack.settings, "scale", np.inf)
    algorithm = algorithm_of(config, model=federation.model)
    drawn = draw_attackers(algorithm.attack, federation.key, len(SIZES))
    attackers = np.flatnonzero(drawn)
    run, (state, *rest) = federation.round(algorithm, devices, chunk, config, skip_diverged=True)
    plain = from_dict(type(CONFIG), {**values, "algorithm": {"name": "moon"}})
    honest = algorithm_of(plain, model=federation.model)
    alone, (other, *others) = without(federation, *attackers).round(honest, 1, 1, plain)
    for _ in range(2):
        state, metrics = run(state, *rest)
        other, _ = alone(other, *others)
        named = np.asarray(metrics.cohort)[np.asarray(metrics.diverged)]
        assert sorted(named.tolist()) == attackers.tolist() and metrics.finite
        parts, expected = (state.model, state.clients), (other.model, other.clients)
        chex.assert_trees_all_close(host(parts), host(expected), rtol=2e-5, atol=1e-6)
    if aggregator == "norm_bound":
        return
    # Without leaving out, they are named all the same.
    warned, (state, *rest) = federation.round(algorithm, devices, chunk, config)
    _, metrics = warned(state, *rest)
    named = np.asarray(metrics.cohort)[np.asarray(metrics.diverged)]
    assert sorted(named.tolist()) == attackers.tolist()


def test_masks_of_who_is_left_out_would_stay():
    secure = {"on_divergence": "skip_client", **GROUPS["secure"]}
    from_dict(type(CONFIG), {**to_dict(EVERYONE), **secure})
    masked = {**secure, "aggregation": {"aggregator": "secure"}}
    with pytest.raises(ConfigError, match=r"aggregation\.secure\.masks cannot be used with on_div"):
        from_dict(type(CONFIG), {**to_dict(EVERYONE), **masked})


@pytest.mark.parametrize("chunk", [1, 3])
def test_without_leaving_out_the_client_is_named_and_the_model_is_not_finite(chunk):
    federation = make_federation(SoftmaxRegression(CLASSES), SIZES)
    config, algorithm = chosen("fedavg")
    run, (state, *rest) = federation.round(poisoned(algorithm, federation), 2, chunk, config)
    state, metrics = run(state, *rest)
    assert np.asarray(metrics.cohort)[np.asarray(metrics.diverged)].tolist() == [BAD]
    assert not metrics.finite and not np.isfinite(metrics.train_loss)
    assert not all(np.isfinite(x).all() for x in jax.tree.leaves(host(state.params)))


@pytest.mark.parametrize("name", ["fedavg", "fednova", "scaffold"])
def test_a_cohort_without_any_images_changes_nothing(name):
    federation = without(make_federation(SoftmaxRegression(CLASSES), (5, 7, 6)), 0, 2)
    config, algorithm = chosen(name)
    order = AvailabilityConfig(sampling="fixed_order")
    config = dataclasses.replace(config, num_clients=3, clients_per_round=1, availability=order)
    run, (state, *rest) = federation.round(algorithm, 1, 1, config, some_empty=True)
    for client in (0, 1, 2):
        before = host((state.model, state.server, state.clients))
        state, metrics = run(state, *rest)
        after = host((state.model, state.server, state.clients))
        assert metrics.finite and not metrics.diverged.any()
        if client == 1:
            moved = jax.tree.map(lambda a, b: np.any(a != b), before, after)
            assert any(jax.tree.leaves(moved))
        else:
            chex.assert_trees_all_equal(before, after)


def test_a_round_in_which_all_diverge_changes_nothing():
    federation = make_federation(SoftmaxRegression(CLASSES), (5, 7))
    config, algorithm = chosen("scaffold")
    config = dataclasses.replace(config, num_clients=2, clients_per_round=2)
    for client in (0, 1):
        algorithm = poisoned(algorithm, federation, client)
    run, (state, *rest) = federation.round(algorithm, 1, 2, config, skip_diverged=True)
    before = host((state.model, state.server, state.clients))
    state, metrics = run(state, *rest)
    assert metrics.diverged.all() and metrics.finite
    chex.assert_trees_all_equal(before, host((state.model, state.server, state.clients)))
