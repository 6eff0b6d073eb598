"""Three rounds of every algorithm on a convex problem, with four ragged clients, against NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.fedcda_selection import Cache, least_divergent
from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.federated.sampling import SAMPLERS
from semanticfl_jax.registry import ALGORITHMS
from semanticfl_jax.semantics.anchors import Anchors
from tests.algorithms.reference import Reference
from tests.algorithms.two_layers import CASES as CASES_OF_TWO_LAYERS
from tests.built_in import built_in
from tests.federation import MEAN, STD, SoftmaxRegression, algorithm_of, make_federation, squares

SIZES, CLASSES, ROUNDS = (7, 12, 5, 10), 4, 3


@pytest.fixture(scope="module")
def federation():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


@pytest.fixture(scope="module")
def anchors():
    visual = np.random.default_rng(3).normal(size=(CLASSES, CLASSES)).astype(np.float32)
    visual /= np.linalg.norm(visual, axis=1, keepdims=True)
    return Anchors(visual, visual, tuple("abcd"), {}, {}, 0)


def configuration(algorithm, momentum):
    values = {
        "num_clients": len(SIZES),
        "clients_per_round": 3,
        "rounds": ROUNDS,
        "local_epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.02,
        "momentum": momentum,
        "weight_decay": 0.01,
        "augmentation": [],
        "algorithm": algorithm,
    }
    if algorithm["name"] == "semanticfl":  # its losses have tests of their own
        values["guidance"] = {"lambda_kd": 0, "lambda_con": 0}
    return from_dict(ExperimentConfig, values)


def flat(params):
    """[W; b], or a stack of them, of one layer's parameters."""
    layer = params["model"]["Dense_0"] if "model" in params else params["Dense_0"]
    return np.concatenate([layer["kernel"], layer["bias"][..., None, :]], axis=-2)


CASES = [
    {"name": "fedavg"},
    {"name": "fedavg", "server_learning_rate": 0.5},
    {"name": "fedprox", "fedprox": {"mu": 0.5}},
    {"name": "scaffold"},
    {"name": "scaffold", "weights": "disco"},
    {"name": "moon", "moon": {"mu": 3.0, "temperature": 0.7}},
    {"name": "fedrcl", "fedrcl": {"temperature": 0.2, "threshold": 0.3}},
    {"name": "feddisco"},
    {"name": "fedcda", "fedcda": {"models": 2, "warmup": 0.34}},
    {"name": "fedcda", "fedcda": {"warmup": 0.0, "smoothness": 50.0}},
    {"name": "feddifrc", "feddifrc": {"temperature": 0.2}},
    {"name": "fednova"},
    {"name": "fednova", "fednova": {"mu": 0.5}},
    {"name": "feddyn", "feddyn": {"alpha": 0.3}},
    {"name": "fedavgm", "server_learning_rate": 0.5},
    {"name": "fedadam", "server_momentum": 0.7, "server_beta2": 0.8, "server_tau": 0.01},
    {"name": "fedyogi"},
    {"name": "fedadagrad"},
    {"name": "moon", "server_optimizer": "yogi", "weights": "uniform"},
    {"name": "semanticfl"},
]


def test_every_algorithm_has_a_case():
    elsewhere = {case["name"] for case in CASES_OF_TWO_LAYERS} | {"fedbn"}
    assert {case["name"] for case in CASES} | elsewhere == set(built_in(ALGORITHMS))


@pytest.fixture(scope="module")
def train(federation, anchors):
    """Trains a case: configuration, algorithm, and the state after each round; remembers them."""
    done = {}

    def train(case, momentum):
        if (str(case), momentum) not in done:
            config = configuration(case, momentum)
            algorithm = algorithm_of(config, anchors, CLASSES)
            run, (state, data, shared, key) = federation.round(algorithm, config=config, chunk=2)
            states = [jax.device_get(state)]
            for _ in range(ROUNDS):
                state, _ = run(state, data, shared, key)
                states.append(jax.device_get(state))
            done[str(case), momentum] = config, algorithm, states
        return done[str(case), momentum]

    return train


def draw(key, number, config):
    """What a round draws at random: the cohort, and {client: order of samples in each epoch}."""
    local_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
    cohort = SAMPLERS["uniform"](key, number, np.array(SIZES), config.clients_per_round)
    cohort = [int(c) for c in cohort]
    orders = {}
    for client in cohort:
        order_key, _ = jax.random.split(jax.random.fold_in(local_key, client))
        keys = [jax.random.fold_in(order_key, epoch) for epoch in range(config.local_epochs)]
        size = SIZES[client]
        orders[client] = [np.asarray(epoch_order(each, size, size)) for each in keys]
    return cohort, orders


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_three_rounds_equal_numpy(federation, anchors, train, case, momentum):
    config, algorithm, (start, *states) = train(case, momentum)
    pixels = (federation.images / 255.0 - np.array(MEAN)) / np.array(STD)
    reference = Reference(
        squares(pixels),
        federation.labels,
        [federation.partition.client(client) for client in range(len(SIZES))],
        flat(start.params).astype(np.float64),
        config,
        anchors.visual.astype(float),
    )
    for number, state in enumerate(states):
        reference.run_round(*draw(federation.key, number, config))
        np.testing.assert_allclose(flat(state.params), reference.theta, rtol=1e-5, atol=1e-5)
        if case["name"] == "scaffold":
            np.testing.assert_allclose(flat(state.server), reference.common, atol=2e-5)
            np.testing.assert_allclose(flat(state.clients), np.stack(reference.own), atol=5e-5)
        if case["name"] == "feddyn":
            tested = algorithm.server.evaluated(state.server, state.model)
            np.testing.assert_allclose(flat(tested.params), reference.average, atol=1e-5)
            np.testing.assert_allclose(flat(state.clients), np.stack(reference.own), atol=1e-5)
            np.testing.assert_allclose(flat(state.server.drift), reference.common, atol=1e-5)
        if case["name"] == "fedcda":
            assert set(np.flatnonzero(state.server.chosen >= 0)) == set(reference.chosen)
            for client, (model, _) in reference.chosen.items():
                own = jax.tree.map(lambda x, c=client: x[c], state.clients.models.params)
                picked = flat(own)[state.server.chosen[client]]
                np.testing.assert_allclose(picked, model, rtol=1e-5, atol=1e-5)


def test_the_cases_differ(train):
    # Were two algorithms the same here, their agreement with NumPy would prove little.
    cases = [case for case in CASES if case["name"] != "semanticfl"]
    results = [flat(train(case, 0.9)[2][-1].params) for case in cases]
    for i, j in itertools.combinations(range(len(cases)), 2):
        assert np.abs(results[i] - results[j]).max() > 1e-4, (cases[i], cases[j])


@pytest.mark.parametrize("seed", range(6))
def test_fedcda_in_parts_chooses_one_part_after_another(seed):
    # Three of four places are filled, in two parts; another client's model is fixed.
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    kept, fixed = rng.normal(size=(4, 2, 3)), rng.normal(size=3)
    losses, counts = rng.uniform(size=(4, 2)), np.array([2, 0, 5, 2])
    newest = np.where(counts > 0, (counts - 1) % 2, -1)
    values = {"models": 2, "batches": 2, "smoothness": 5.0}
    config = configuration({"name": "fedcda", "fedcda": values}, momentum=0.0)
    caches = Cache(Model(jnp.float32(kept), ()), jnp.float32(losses), jnp.asarray(counts))
    arguments = jnp.zeros(3), jnp.float32(fixed), jnp.int32(1), caches, jnp.asarray(newest)
    found = least_divergent(*arguments, config, key)

    order = np.asarray(jax.random.permutation(key, jnp.array([0, 2, 3])))
    expected, models, lost = newest.copy(), [fixed], 0.0
    for part in (order[:2], order[2:]):

        def value(picks, part=part, models=models, lost=lost):
            chosen = np.array([*models, *kept[part, picks]])
            total = lost + losses[part, picks].sum()
            return total / len(chosen) + 2.5 * chosen.var(axis=0).sum()

        expected[part] = min(map(list, itertools.product((0, 1), repeat=len(part))), key=value)
        models = [*models, *kept[part, expected[part]]]
        lost += losses[part, expected[part]].sum()
    np.testing.assert_array_equal(found, expected)
