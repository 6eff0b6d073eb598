"""Runs of a network of two linear layers, which several files compare."""

import jax
import numpy as np
import pytest

from tests.algorithms.two_layers import ROUNDS, SIZES, configuration
from tests.federation import CLASSES, DeepLinear, algorithm_of, make_federation


@pytest.fixture(scope="session")
def linear_federation():
    """Four ragged clients, and two linear layers."""
    return make_federation(DeepLinear(CLASSES), SIZES)


@pytest.fixture(scope="session")
def train_linear(linear_federation):
    """Trains a case: configuration, algorithm and the state after each round; remembers them."""
    done = {}

    def train(case, devices=1, chunk=2, memory="device", **changes):
        key = str((case, devices, chunk, memory, changes))
        if key not in done:
            config = configuration(case, **changes)
            algorithm = algorithm_of(config, model=linear_federation.model)
            run, (state, data, shared, rng) = linear_federation.round(
                algorithm, devices, chunk, config, memory
            )
            states = [jax.tree.map(np.array, state)]
            for _ in range(ROUNDS):
                state, _ = run(state, data, shared, rng)
                states.append(jax.tree.map(np.array, state))
            done[key] = config, algorithm, states
        return done[key]

    return train
