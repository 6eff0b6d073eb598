"""Algorithms on any number of devices, in chunks of any size, with client states anywhere."""

import chex
import jax
import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.semantics.anchors import Anchors
from tests.federation import SoftmaxRegression, algorithm_of, make_federation

SIZES, CLASSES, ROUNDS = (3, 5, 8, 13, 1, 12, 10, 4), 4, 3

GUIDED = {"enabled": True, "lambda_con": 0.1}

#: Every client rule and server rule, every kind of term and weights, and guidance with all of them.
CASES = {
    "scaffold": {"algorithm": {"name": "scaffold"}, "guidance": GUIDED},
    "moon": {
        "algorithm": {"name": "moon", "server_optimizer": "yogi", "weights": "disco"},
        "guidance": GUIDED,
    },
    "fedrcl": {"algorithm": {"name": "fedrcl", "server_optimizer": "momentum"}},
    "fedcda": {"algorithm": {"name": "fedcda", "fedcda": {"batches": 2}}, "guidance": GUIDED},
    "feddifrc": {"algorithm": {"name": "feddifrc", "server_optimizer": "adam"}, "guidance": GUIDED},
    "fednova": {"algorithm": {"name": "fednova", "fednova": {"mu": 0.1}}, "guidance": GUIDED},
    "feddyn": {"algorithm": {"name": "feddyn"}, "guidance": GUIDED},
    "fedprox": {"algorithm": {"name": "fedprox", "weights": "uniform"}, "guidance": GUIDED},
}


@pytest.fixture(scope="module")
def federation():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


@pytest.fixture(scope="module")
def train(federation):
    """Trains a case as asked for: the state after all rounds, on the host; remembers it."""
    visual = np.random.default_rng(3).normal(size=(CLASSES, CLASSES)).astype(np.float32)
    visual /= np.linalg.norm(visual, axis=1, keepdims=True)
    anchors = Anchors(visual, visual, tuple("abcd"), {}, {}, 0)
    done = {}

    def train(case, devices, chunk, memory="device"):
        key = (case, devices, chunk, memory)
        if key not in done:
            values = {"num_clients": len(SIZES), "clients_per_round": 5, "rounds": ROUNDS}
            values |= {"local_epochs": 2, "batch_size": 4, "augmentation": [], **CASES[case]}
            config = from_dict(ExperimentConfig, values)
            algorithm = algorithm_of(config, anchors, CLASSES)
            run, (state, data, shared, rng) = federation.round(
                algorithm, devices, chunk, config, memory
            )
            state, _ = run(state, data, shared, rng)
            guard = "disallow" if memory == "device" else "allow"
            with jax.transfer_guard(guard):
                for _ in range(ROUNDS - 1):
                    state, _ = run(state, data, shared, rng)
            leaves = [x for x in jax.tree.leaves(state.clients) if isinstance(x, jax.Array)]
            assert bool(leaves) == (memory == "device" and bool(jax.tree.leaves(state.clients)))
            assert all(len(x.sharding.device_set) == devices for x in leaves)
            done[key] = jax.tree.map(np.array, state)
        return done[key]

    return train


@pytest.mark.parametrize(("devices", "chunk"), [(2, 2), (8, 1)])
@pytest.mark.parametrize("case", CASES)
def test_chunks_and_devices_do_not_change_the_result(train, case, devices, chunk):
    result, expected = train(case, devices, chunk), train(case, 1, 1)
    chex.assert_trees_all_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["scaffold", "moon", "fedcda", "feddyn"])
def test_host_memory_gives_the_same_numbers_bit_for_bit(train, case):
    chex.assert_trees_all_equal(train(case, 2, 2, "host"), train(case, 2, 2))


def test_states_are_spread_over_devices_that_share_the_clients_evenly(federation):
    config = from_dict(ExperimentConfig, {"num_clients": 8, "algorithm": {"name": "scaffold"}})
    for devices, rows in ((2, 4), (3, 8), (8, 1)):
        _, (state, *_) = federation.round(algorithm_of(config), devices, config=config)
        for leaf in jax.tree.leaves(state.clients):
            assert leaf.addressable_shards[0].data.shape[0] == rows
