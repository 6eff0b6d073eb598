"""Settings at which an algorithm must be another one, and what must hold in every round."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, from_dict
from semanticfl_jax.devices.mesh import make_mesh
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    SIZES,
    TinyNet,
    algorithm_of,
    make_federation,
)


@pytest.fixture(scope="module")
def federation():
    return make_federation(TinyNet(CLASSES), SIZES)


@pytest.fixture(scope="module")
def run(federation):
    """Runs rounds of an algorithm, on the host: [state after each]; remembers what it ran."""
    done = {}

    def run(rounds, name, **options):
        key = json.dumps([rounds, name, options])
        if key not in done:
            config = _named(name, **options)
            program, (state, data, shared, rng) = federation.round(
                algorithm_of(config), config=config, chunk=2
            )
            done[key] = []
            for _ in range(rounds):
                state, _ = program(state, data, shared, rng)
                done[key].append(jax.tree.map(np.array, state))
        return done[key]

    return run


def test_fedprox_without_pull_is_fedavg_bit_for_bit(run):
    fedavg, fedprox = run(2, "fedavg"), run(2, "fedprox", fedprox={"mu": 0})
    chex.assert_trees_all_equal(fedprox, fedavg)


def test_fedavgm_without_momentum_is_fedavg(run):
    fedavgm = run(2, "fedavgm", server_momentum=0)
    chex.assert_trees_all_equal(fedavgm[1].model, run(2, "fedavg")[1].model)


def test_scaffold_starts_as_uniform_fedavg(run):
    scaffold, fedavg = run(4, "scaffold"), run(2, "fedavg", weights="uniform")
    chex.assert_trees_all_close(scaffold[0].model, fedavg[0].model, rtol=1e-6, atol=1e-7)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(scaffold[1].model, fedavg[1].model, rtol=1e-3, atol=1e-4)


def test_scaffolds_c_is_the_mean_of_all_clients_in_every_round(run):
    states = run(4, "scaffold")
    for state in states:
        mean = jax.tree.map(lambda c: np.mean(c, axis=0), state.clients)
        chex.assert_trees_all_close(state.server, mean, rtol=1e-5, atol=1e-6)
    # Clients that were not drawn keep theirs.
    before, after = (jax.tree.leaves(state.clients)[0] for state in states[1:3])
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) == CONFIG.clients_per_round


def test_fedcda_begins_as_fedavg_running_statistics_included(run):
    # One of 50 rounds: clients count by their sizes, and then no more.
    fedcda, fedavg = run(2, "fedcda", fedcda={"warmup": 0.02}), run(2, "fedavg")
    chex.assert_trees_all_close(fedcda[0].model, fedavg[0].model, rtol=1e-6, atol=1e-7)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(fedcda[1].model, fedavg[1].model, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "rounds"), [("scaffold", 4), ("fednova", 2)])
def test_the_servers_rate_scales_its_step(federation, run, name, rounds):
    start = federation.start(FEDAVG, make_mesh(1))[0].params
    whole, half = run(rounds, name)[0], run(1, name, server_learning_rate=0.5)[0]
    middle = jax.tree.map(lambda a, b: 0.5 * (a + b), start, whole.params)
    chex.assert_trees_all_close(half.params, middle, rtol=1e-5, atol=1e-6)


def test_moon_starts_as_fedavg_and_goes_on_otherwise(run):
    # Five of seven clients a round: in round 2 three or more have a previous model.
    moon, fedavg = run(2, "moon"), run(2, "fedavg")
    chex.assert_trees_all_close(moon[0].model, fedavg[0].model, rtol=1e-6, atol=1e-7)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(moon[1].model, fedavg[1].model, rtol=1e-5, atol=1e-6)
    silent = run(2, "moon", moon={"mu": 0})
    chex.assert_trees_all_equal(silent[1].model, fedavg[1].model)


def test_moon_remembers_the_whole_model_with_its_running_statistics(run):
    state = run(1, "moon")[0]
    trained = state.clients["trained"]
    assert trained.sum() == CONFIG.clients_per_round
    variances = jax.tree.leaves(state.clients["model"].batch_stats)
    assert all((np.any(x != 0, axis=-1) == trained).all() for x in variances)


def test_fedrcl_without_levels_is_uniform_fedavg_bit_for_bit(run):
    fedrcl, fedavg = run(2, "fedrcl", fedrcl={"levels": []}), run(2, "fedavg", weights="uniform")
    chex.assert_trees_all_equal(fedrcl[1].model, fedavg[1].model)


def test_feddifrc_without_weights_is_fedavg_bit_for_bit(run):
    silent = run(2, "feddifrc", feddifrc={"lambda_tdcl": 0, "lambda_ndcr": 0})
    chex.assert_trees_all_equal(silent[1].model, run(2, "fedavg")[1].model)


def test_feddyns_drift_is_the_mean_over_all_clients_in_every_round(run):
    # The server identity: h / alpha = -mean(l_i), with drift = -h / alpha.
    for state in run(4, "feddyn"):
        mean = jax.tree.map(lambda own: np.mean(own, axis=0), state.clients)
        chex.assert_trees_all_close(state.server.drift, mean, rtol=1e-5, atol=1e-6)
        shifted = jax.tree.map(np.add, state.server.average, state.server.drift)
        chex.assert_trees_all_close(state.params, shifted, rtol=1e-6, atol=1e-7)


def test_running_statistics_are_averaged_and_never_optimised(run):
    # In the first round all clients train alike: the trained statistics must be the same average.
    expected = run(2, "fedavg")[0].batch_stats
    for name in ("fedavgm", "fedadam", "fedyogi", "fednova", "moon"):
        state = run(2, name)[0]
        chex.assert_trees_all_close(state.batch_stats, expected, rtol=1e-5, atol=1e-6)
    uniform = run(2, "fedavg", weights="uniform")[0].batch_stats
    chex.assert_trees_all_close(run(4, "scaffold")[0].batch_stats, uniform, rtol=1e-5, atol=1e-6)
    # And what SCAFFOLD and FedDyn keep has no place for them.
    for name in ("scaffold", "feddyn"):
        state = run(4, name)[0]
        chex.assert_trees_all_equal_structs(state.clients, state.params)


@pytest.fixture(scope="module")
def equal():
    """Clients of equal size, who all take part."""
    return make_federation(TinyNet(CLASSES), (6, 6, 6))


@pytest.mark.parametrize(
    "options",
    [
        {"name": "fednova"},
        {"name": "fedcda", "fedcda": {"models": 1, "warmup": 0}},
        {"name": "fedcda", "fedcda": {"models": 3, "warmup": 0, "selection": "newest"}},
        {"name": "fedcda", "fedcda": {"warmup": 1.0}},
    ],
    ids=str,
)
def test_equal_clients_who_all_take_part_make_fedavg(equal, options):
    results = []
    for chosen in (options, {"name": "fedavg"}):
        algorithm = from_dict(AlgorithmConfig, chosen)
        config = dataclasses.replace(
            CONFIG, num_clients=3, clients_per_round=3, rounds=2, algorithm=algorithm
        )
        program, (state, data, shared, key) = equal.round(algorithm_of(config), config=config)
        for _ in range(2):
            state, _ = program(state, data, shared, key)
        results.append(state.model)
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


def test_feddisco_is_fedavg_where_clients_are_alike():
    sizes = jnp.array([8, 8, 0, 8])
    counts = jnp.array([[6, 2, 0], [2, 0, 6], [0, 0, 0], [0, 6, 2]])
    config = ExperimentConfig(algorithm=AlgorithmConfig(name="feddisco"))
    weights = algorithm_of(config).weights
    np.testing.assert_allclose(weights(sizes, counts), np.array([1, 1, 0, 1]) / 3, rtol=1e-6)
    # Without any discrepancy the division by its sum must not fail.
    balanced = jnp.array([[4, 4, 4], [4, 4, 4]])
    np.testing.assert_allclose(weights(jnp.array([12, 12]), balanced), [0.5, 0.5], rtol=1e-6)


def test_feddisco_drops_who_is_far_from_uniform_and_falls_back_to_sizes():
    sizes = jnp.array([10, 10, 20, 0])
    counts = jnp.array([[10, 0], [5, 5], [10, 10], [0, 0]])
    settings = {"feddisco": {"a": 0.5, "b": 0.1}}
    weights = algorithm_of(_named("feddisco", **settings)).weights(sizes, counts)
    # All discrepancy is the first client's: 0.25 - 0.5 + 0.1 < 0.
    np.testing.assert_allclose(weights, np.array([0, 0.35, 0.6, 0]) / 0.95, rtol=1e-6)
    settings = {"feddisco": {"a": 10.0, "b": 0.0}}
    same = jnp.array([[10, 0], [10, 0], [20, 0], [0, 0]])
    weights = algorithm_of(_named("feddisco", **settings)).weights(sizes, same)
    np.testing.assert_allclose(weights, [0.25, 0.25, 0.5, 0], rtol=1e-6)


def _named(name, **options):
    algorithm = from_dict(AlgorithmConfig, {"name": name, **options})
    return dataclasses.replace(CONFIG, algorithm=algorithm)


def test_weights_are_a_choice_of_their_own():
    sizes, counts = jnp.array([3, 0, 1]), jnp.zeros((3, 4), jnp.int32)
    for name, own in (("scaffold", "uniform"), ("fedprox", "size")):
        for choice in ("auto", "size", "uniform"):
            config = ExperimentConfig(algorithm=AlgorithmConfig(name=name, weights=choice))
            expected = {"size": [0.75, 0, 0.25], "uniform": [0.5, 0, 0.5]}
            weights = algorithm_of(config).weights(sizes, counts)
            np.testing.assert_allclose(weights, expected[own if choice == "auto" else choice])
