"""Three rounds of personal models and local objectives against NumPy, on any devices."""

import itertools

import chex
import jax
import numpy as np
import pytest

from semanticfl_jax.algorithms.fedetf import simplex
from semanticfl_jax.config import ConfigError
from semanticfl_jax.randomness import HostStream, host_generator
from tests.algorithms.deep_linear import DeepLinearReference
from tests.algorithms.two_layers import CASES, SIZES, configuration, draw, weights_of
from tests.federation import CLASSES, MEAN, STD, squares


def reference_of(federation, start, config, *corners):
    """The same run in NumPy, from the same start."""
    pixels = (federation.images / 255.0 - np.array(MEAN)) / np.array(STD)
    clients = [federation.partition.client(client) for client in range(len(SIZES))]
    weights = weights_of(start.params)
    return DeepLinearReference(
        squares(pixels), federation.labels, clients, weights, config, *corners
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_three_rounds_equal_numpy(linear_federation, train_linear, case):
    config, algorithm, (start, *states) = train_linear(case)
    corners = simplex(5, CLASSES, host_generator(config.seed, HostStream.SIMPLEX))
    reference = reference_of(linear_federation, start, config, corners.astype(np.float64))
    if case["name"] == "ifca":
        others = weights_of(start.server.params)
        count = len(others["head"])
        reference.models += [
            {n: x[i].astype(float) for n, x in others.items()} for i in range(count)
        ]
    for number, state in enumerate(states):
        reference.run_round(*draw(linear_federation.key, number, config))
        chex.assert_trees_all_close(weights_of(state.params), reference.model, rtol=1e-4, atol=2e-5)
        tested = algorithm.server.evaluated(state.server, state.model)
        chex.assert_trees_all_close(
            weights_of(tested.params), reference.tested, rtol=1e-4, atol=2e-5
        )
        if algorithm.client is None or algorithm.client.personal is None:
            continue
        for client, own in enumerate(reference.own):
            if case["name"] == "apfl":
                v, alpha = own
                np.testing.assert_allclose(state.clients.alpha[client], alpha, rtol=1e-5)
                own = {n: alpha * v[n] + (1 - alpha) * reference.model[n] for n in v}
            if case["name"] == "fedala":
                kernel = state.clients.weights.params["model"]["head"]["kernel"]
                np.testing.assert_allclose(kernel[client], own[1], rtol=1e-4, atol=2e-5)
                own = reference.mixed(own, reference.model)
            if case["name"] == "ifca":
                assert state.clients[client] == own
                assert number == 0 or len(set(reference.own)) > 1
                own = reference.models[own]
            kept = jax.tree.map(lambda x, c=client: x[c], state.clients)
            sent = algorithm.server.broadcast(state.server)
            model = algorithm.client.personal(kept, state.model, sent)
            expected = {**reference.model, **own}
            chex.assert_trees_all_close(weights_of(model.params), expected, rtol=1e-4, atol=2e-5)


def test_the_cases_differ(train_linear):
    # Were two of them the same here, their agreement with NumPy would prove little.
    results = []
    for case in CASES:
        _, algorithm, states = train_linear(case)
        model = algorithm.server.evaluated(states[-1].server, states[-1].model)
        kept = [np.ravel(x) for x in jax.tree.leaves((model, states[-1].clients))]
        results.append(np.concatenate(kept))
    for (i, a), (j, b) in itertools.combinations(enumerate(results), 2):
        assert a.shape != b.shape or np.abs(a - b).max() > 1e-4, (CASES[i], CASES[j])


@pytest.mark.parametrize(
    "case", [CASES[3], CASES[7], CASES[9], CASES[10]], ids=lambda case: case["name"]
)
def test_devices_chunks_and_host_memory_change_nothing(train_linear, case):
    states = train_linear(case)[2]
    spread = train_linear(case, devices=2, chunk=3, memory="host")[2]
    chex.assert_trees_all_close(spread[-1].model, states[-1].model, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(spread[-1].clients, states[-1].clients, rtol=1e-5, atol=1e-6)


def test_the_rate_can_fall_with_every_local_epoch(linear_federation, train_linear):
    # Two epochs, the second at a factor of 0.5: as two rates by hand.
    decay = {"optimizer": {"epoch_decay": 0.5}, "momentum": 0.0}
    config, _, (start, first, *_) = train_linear({"name": "local"}, **decay)
    cohort, orders = draw(linear_federation.key, 0, config)
    reference = reference_of(linear_federation, start, config)
    w, client = reference.model, cohort[0]
    for epoch, rows in reference.batches(client, orders[client]):
        _, gradient = reference.loss_and_gradient(w, rows, client)
        rate = config.learning_rate * 0.5**epoch
        w = {n: w[n] - rate * (gradient[n] + config.weight_decay * w[n]) for n in w}
    kept = jax.tree.map(lambda x: x[client], first.clients)
    chex.assert_trees_all_close(weights_of(kept.params), w, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"optimizer.epoch_decay must be 1 with .*scaffold"):
        configuration({"name": "scaffold"}, **decay)
