"""Settings at which an algorithm must be another one, and what must hold in every round."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import make_algorithm
from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, from_dict
from tests.federation import CLASSES, CONFIG, SIZES, TinyNet, make_federation


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
            algorithm = from_dict(AlgorithmConfig, {"name": name, **options})
            config = dataclasses.replace(CONFIG, algorithm=algorithm)
            program, (state, data, shared, rng) = federation.round(
                make_algorithm(config), config=config, chunk=2
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


def test_weights_are_a_choice_of_their_own():
    sizes, counts = jnp.array([3, 0, 1]), jnp.zeros((3, 4), jnp.int32)
    for name, own in (("scaffold", "uniform"), ("fedprox", "size")):
        for choice in ("auto", "size", "uniform"):
            config = ExperimentConfig(algorithm=AlgorithmConfig(name=name, weights=choice))
            expected = {"size": [0.75, 0, 0.25], "uniform": [0.5, 0, 0.5]}
            weights = make_algorithm(config).weights(sizes, counts)
            np.testing.assert_allclose(weights, expected[own if choice == "auto" else choice])
