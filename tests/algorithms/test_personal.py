"""Personal models and other local objectives: three rounds against NumPy, and limiting cases."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import guidance_term
from semanticfl_jax.algorithms.base import Beginning, Model, TermInputs, Trained
from semanticfl_jax.algorithms.fedetf import simplex
from semanticfl_jax.algorithms.qffl import Seen
from semanticfl_jax.config import ConfigError, ExperimentConfig, GuidanceConfig, from_dict
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.cohort import SAMPLERS
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models import Outputs
from semanticfl_jax.randomness import HostStream, host_generator
from tests.algorithms.deep_linear import DeepLinearReference
from tests.federation import (
    CLASSES,
    MEAN,
    STD,
    DeepLinear,
    TinyNet,
    TwoLayers,
    algorithm_of,
    make_federation,
    squares,
)

SIZES, ROUNDS = (7, 12, 5, 10), 3

CASES = [
    {"name": "local"},
    {"name": "fedper"},
    {"name": "fedrep"},
    {"name": "ditto", "ditto": {"weight": 0.5}},
    {"name": "pfedme", "pfedme": {"weight": 3.0, "inner_steps": 3, "inner_rate": 0.05}},
    {"name": "apfl"},
    {"name": "apfl", "apfl": {"alpha": 0.8, "adaptive": False}},
    {"name": "fedala", "fedala": {"rate": 3.0}},
    {"name": "ifca"},
    {"name": "ifca", "ifca": {"models": 3, "spread": 0.5}},
    {"name": "qffl"},
    {"name": "qffl", "qffl": {"q": 0.3}},
    {"name": "fedexp", "fedexp": {"epsilon": 1e-6}},
    {"name": "fedsam", "fedsam": {"rho": 0.3}},
    {"name": "fedntd", "fedntd": {"temperature": 2.0}},
    {"name": "fedlc"},
    {"name": "fedetf", "fedetf": {"scale": 4.0}},
]


def configuration(algorithm, **changes):
    values = {
        "num_clients": len(SIZES),
        "clients_per_round": 3,
        "rounds": ROUNDS,
        "local_epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "augmentation": [],
        "algorithm": algorithm,
        **changes,
    }
    return from_dict(ExperimentConfig, values)


@pytest.fixture(scope="module")
def federation():
    return make_federation(DeepLinear(CLASSES), SIZES)


@pytest.fixture(scope="module")
def train(federation):
    """Trains a case: configuration, algorithm and the state after each round; remembers them."""
    done = {}

    def train(case, devices=1, chunk=2, memory="device", **changes):
        key = str((case, devices, chunk, memory, changes))
        if key not in done:
            config = configuration(case, **changes)
            algorithm = algorithm_of(config, model=federation.model)
            run, (state, data, shared, rng) = federation.round(
                algorithm, devices, chunk, config, memory
            )
            states = [jax.tree.map(np.array, state)]
            for _ in range(ROUNDS):
                state, _ = run(state, data, shared, rng)
                states.append(jax.tree.map(np.array, state))
            done[key] = config, algorithm, states
        return done[key]

    return train


def draw(key, number, config):
    """What a round draws at random: the cohort, and {client: order of samples in each epoch}."""
    local_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
    cohort = SAMPLERS["uniform"](key, number, np.array(SIZES), config.clients_per_round)
    orders = {}
    for client in map(int, cohort):
        order_key, _ = jax.random.split(jax.random.fold_in(local_key, client))
        keys = [jax.random.fold_in(order_key, epoch) for epoch in range(config.local_epochs)]
        size = SIZES[client]
        orders[client] = [np.asarray(epoch_order(each, size, size)) for each in keys]
    return list(orders), orders


def weights_of(params):
    """The two matrices of a network's parameters."""
    return {name: np.asarray(layer["kernel"]) for name, layer in params["model"].items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_three_rounds_equal_numpy(federation, train, case):
    config, algorithm, (start, *states) = train(case)
    pixels = (federation.images / 255.0 - np.array(MEAN)) / np.array(STD)
    corners = simplex(5, CLASSES, host_generator(config.seed, HostStream.SIMPLEX))
    reference = DeepLinearReference(
        squares(pixels),
        federation.labels,
        [federation.partition.client(client) for client in range(len(SIZES))],
        weights_of(start.params),
        config,
        corners.astype(np.float64),
    )
    if case["name"] == "ifca":
        others = weights_of(start.server.params)
        count = len(others["head"])
        reference.models += [
            {n: x[i].astype(float) for n, x in others.items()} for i in range(count)
        ]
    for number, state in enumerate(states):
        reference.run_round(*draw(federation.key, number, config))
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


def test_the_cases_differ(train):
    # Were two of them the same here, their agreement with NumPy would prove little.
    results = []
    for case in CASES:
        _, algorithm, states = train(case)
        model = algorithm.server.evaluated(states[-1].server, states[-1].model)
        kept = [np.ravel(x) for x in jax.tree.leaves((model, states[-1].clients))]
        results.append(np.concatenate(kept))
    for (i, a), (j, b) in itertools.combinations(enumerate(results), 2):
        assert a.shape != b.shape or np.abs(a - b).max() > 1e-4, (CASES[i], CASES[j])


@pytest.mark.parametrize(
    "case",
    [
        {"name": "fedper", "fedper": {"layers": []}},
        {"name": "fedsam", "fedsam": {"rho": 0.0}},
        {"name": "fedntd", "fedntd": {"beta": 0.0}},
        {"name": "fedlc", "fedlc": {"tau": 0.0}},
    ],
    ids=lambda case: case["name"],
)
def test_limiting_cases_are_fedavg_bit_for_bit(train, case):
    fedavg, own = train({"name": "fedavg"}), train(case)
    chex.assert_trees_all_equal(own[2][-1].model, fedavg[2][-1].model)
    assert own[2][-1].clients == ()


def test_the_common_model_of_ditto_and_apfl_is_fedavgs(train):
    fedavg = train({"name": "fedavg"})[2][-1].model
    for name in ("ditto", "apfl"):
        model = train({"name": name})[2][-1].model
        chex.assert_trees_all_close(model, fedavg, rtol=1e-6, atol=1e-7)


def test_ditto_without_pull_is_local_training(train):
    ditto = train({"name": "ditto", "ditto": {"weight": 0.0}})[2][-1]
    local = train({"name": "local"})[2][-1]
    chex.assert_trees_all_close(ditto.clients, local.clients, rtol=1e-6, atol=1e-7)


def test_apfl_without_a_common_share_is_local_training(train):
    apfl = train({"name": "apfl", "apfl": {"alpha": 1.0, "adaptive": False}})[2][-1]
    local = train({"name": "local"})[2][-1]
    chex.assert_trees_all_close(apfl.clients.params, local.clients.params, rtol=1e-5, atol=1e-6)


def test_fedala_without_learning_is_fedavg(train):
    fedala = train({"name": "fedala", "fedala": {"rate": 0.0}})[2][-1].model
    fedavg = train({"name": "fedavg"})[2][-1].model
    chex.assert_trees_all_close(fedala, fedavg, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("share", "steps", "taken"), [(0.3, 50, 15), (0.3, 51, 16), (0.01, 5, 1)])
def test_fedala_learns_from_its_share_of_the_batches(federation, share, steps, taken):
    case = {"name": "fedala", "fedala": {"rate": 1.0, "share": share}}
    rule = algorithm_of(configuration(case), model=federation.model).client
    received = Model({"model": {"head": {"kernel": jnp.ones((5, CLASSES))}}}, {})
    state = rule.init(jax.tree.map(jnp.zeros_like, received))
    # Each batch takes a 64th of the common model away.
    found = (jnp.zeros(()), {}), jax.tree.map(lambda x: x / 64, received.params)
    begun, weights = rule.begin(
        Beginning(lambda model, step: found, state, received, (), jnp.int32(steps))
    )
    for model in (begun, weights):
        np.testing.assert_array_equal(weights_of(model.params)["head"], 1 - taken / 64)


def test_qffl_without_fairness_is_uniform_fedavg(train):
    qffl = train({"name": "qffl", "qffl": {"q": 0.0}})[2][-1].model
    fedavg = train({"name": "fedavg", "weights": "uniform"})[2][-1].model
    chex.assert_trees_all_close(qffl, fedavg, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 2.0])
def test_qffl_takes_a_loss_of_zero_as_a_tiny_one(q):
    algorithm = algorithm_of(configuration({"name": "qffl", "qffl": {"q": q}}))
    x, y = np.float32([1.0, 2.0]), np.float32([1.5, 1.0])
    received, trained = (Model({"model": values}, {}) for values in (x, y))
    one, rate = jnp.float32(1), jnp.float32(0.1)
    seen = Seen(jnp.zeros(()), jnp.float32(5))
    finished = algorithm.client.finish(
        Trained((), (), received, trained, 3, one, one, rate, jax.random.key(0), seen)
    )
    length = np.sum(((x - y) / 0.1) ** 2)
    expected = q * 1e-10 ** (q - 1) * length + 1e-10**q / 0.1
    np.testing.assert_allclose(finished.extra, expected, rtol=1e-4)
    moved = 1e-10**q * (y - x) / 0.1
    np.testing.assert_allclose(finished.update["model"], moved, rtol=1e-4)


def test_fedlc_keeps_the_class_that_an_attacker_gives_an_image():
    logits = algorithm_of(configuration({"name": "fedlc", "fedlc": {"tau": 0.5}})).logits
    given = np.float32([[0.3, 1.0, -2.0, 0.7]] * 2)
    inputs = TermInputs(
        params={},
        shared=(),
        outputs=Outputs(jnp.asarray(given), None),
        labels=jnp.array([0, 2]),
        mask=jnp.ones(2, bool),
        label_counts=jnp.array([16, 0, 0, 81]),
    )
    found = np.asarray(logits(inputs))
    left = given - 0.5 * np.array([0.5, 1.0, 1.0, 1 / 3])
    np.testing.assert_allclose(found[0, [0, 3]], left[0, [0, 3]], rtol=1e-5)
    np.testing.assert_allclose(found[1, [0, 2, 3]], left[1, [0, 2, 3]], rtol=1e-5)
    assert np.all(found[0, [1, 2]] < -1e8) and found[1, 1] < -1e8


def test_what_stays_with_the_clients_is_no_traffic(federation, train):
    sizes = {}
    for name in ("fedavg", "fedper", "local", "qffl", "ditto", "ifca"):
        algorithm = train({"name": name})[1]
        state, data, _, _ = federation.start(algorithm, make_mesh(1))
        sizes[name] = make_traffic(algorithm, state, data)[:2]
    base, head = 4 * 12 * 5, 4 * 5 * CLASSES
    assert sizes == {
        "fedavg": (base + head,) * 2,
        "fedper": (base,) * 2,
        "local": (0, 0),
        "qffl": (base + head + 4, base + head),
        "ditto": (base + head,) * 2,
        "ifca": (base + head, 2 * (base + head)),
    }


@pytest.mark.parametrize(
    "case", [CASES[3], CASES[7], CASES[9], CASES[10]], ids=lambda case: case["name"]
)
def test_devices_chunks_and_host_memory_change_nothing(train, case):
    states = train(case)[2]
    spread = train(case, devices=2, chunk=3, memory="host")[2]
    chex.assert_trees_all_close(spread[-1].model, states[-1].model, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(spread[-1].clients, states[-1].clients, rtol=1e-5, atol=1e-6)


def test_the_rate_can_fall_with_every_local_epoch(federation, train):
    # Two epochs, the second at a factor of 0.5: as two rates by hand.
    decay = {"optimizer": {"epoch_decay": 0.5}, "momentum": 0.0}
    config, _, (start, first, *_) = train({"name": "local"}, **decay)
    pixels = (federation.images / 255.0 - np.array(MEAN)) / np.array(STD)
    cohort, orders = draw(federation.key, 0, config)
    reference = DeepLinearReference(
        squares(pixels),
        federation.labels,
        [federation.partition.client(client) for client in range(len(SIZES))],
        weights_of(start.params),
        config,
    )
    w, client = reference.model, cohort[0]
    for epoch, rows in reference.batches(client, orders[client]):
        _, gradient = reference.loss_and_gradient(w, rows, client)
        rate = config.learning_rate * 0.5**epoch
        w = {n: w[n] - rate * (gradient[n] + config.weight_decay * w[n]) for n in w}
    kept = jax.tree.map(lambda x: x[client], first.clients)
    chex.assert_trees_all_close(weights_of(kept.params), w, rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"optimizer.epoch_decay must be 1 with .*scaffold"):
        configuration({"name": "scaffold"}, **decay)


def test_fedbn_keeps_what_normalises_and_all_running_statistics():
    federation = make_federation(TwoLayers(CLASSES), SIZES)
    # As FedPer's head, and statistics besides: of a client that starts from the server's in round 1
    # and is not drawn again, both are what training left.
    config = configuration({"name": "fedbn", "fedbn": {"names": ["HEAD"]}})
    algorithm = algorithm_of(config, model=federation.model)
    run, (state, data, shared, key) = federation.round(algorithm, chunk=2, config=config)
    before = jax.tree.map(np.array, state.model)
    state, metrics = run(state, data, shared, key)
    cohort = [int(c) for c in metrics.cohort if c >= 0]
    chex.assert_trees_all_equal(state.batch_stats, before.batch_stats)
    chex.assert_trees_all_equal(state.params["model"]["head"], before.params["model"]["head"])
    kept = state.clients
    assert kept.params["model"]["base"] == {"bias": None, "kernel": None}
    plain = configuration({"name": "fedavg"})
    run, (start, *rest) = federation.round(algorithm_of(plain), chunk=2, config=plain)
    average, _ = run(start, *rest)
    weights = np.array([SIZES[c] for c in cohort]) / sum(SIZES[c] for c in cohort)
    # In the first round all start alike, so that their average is FedAvg's.
    own = (kept.params["model"]["head"]["kernel"], kept.batch_stats["mean"])
    common = (average.params["model"]["head"]["kernel"], average.batch_stats["mean"])
    for each, merged in zip(own, common, strict=True):
        mixed = np.tensordot(weights, np.asarray(each)[cohort], 1)
        np.testing.assert_allclose(mixed, merged, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(
        state.params["model"]["base"], average.params["model"]["base"], rtol=1e-5, atol=1e-6
    )


def test_each_model_of_ifca_has_its_own_running_statistics():
    # From equal models, those of the two averaged by who chose them are FedAvg's.
    federation = make_federation(TwoLayers(CLASSES), SIZES)
    config = configuration({"name": "ifca", "ifca": {"spread": 1e-4}})
    run, start = federation.round(algorithm_of(config, model=federation.model), 1, 2, config)
    state, _ = run(*start)
    chosen, statistics = state.server.chosen, state.server.batch_stats["mean"]
    assert chosen.min() > 0
    np.testing.assert_array_equal(state.batch_stats["mean"], statistics[0])
    plain = configuration({"name": "fedavg"})
    run, start = federation.round(algorithm_of(plain), 1, 2, plain)
    average, _ = run(*start)
    np.testing.assert_allclose(
        np.tensordot(chosen, statistics, 1), average.batch_stats["mean"], rtol=1e-3, atol=1e-5
    )
    assert np.abs(statistics[0] - statistics[1]).max() > 1e-3


def test_names_of_layers_are_checked_against_the_model():
    def build(case, model):
        return algorithm_of(configuration(case), model=model)

    with pytest.raises(SemanticFLError, match=r"layers of the model \(base, head\), got 'tail'"):
        build({"name": "fedper", "fedper": {"layers": ["tail"]}}, DeepLinear(CLASSES))
    with pytest.raises(SemanticFLError, match=r"2 layers \(base, head\) have a matrix with 4"):
        build({"name": "fedrep"}, DeepLinear(CLASSES, feature_dim=CLASSES))
    with pytest.raises(SemanticFLError, match="needs normalisation layers"):
        build({"name": "fedbn"}, DeepLinear(CLASSES))
    with pytest.raises(SemanticFLError, match="at least as wide as there are classes, 4"):
        build({"name": "fedetf"}, DeepLinear(CLASSES, feature_dim=3))
    with pytest.raises(ConfigError, match=r"fedrep.body_epochs must be below local_epochs"):
        configuration({"name": "fedrep", "fedrep": {"body_epochs": 2}})
    belongs = build({"name": "fedbn"}, TinyNet(CLASSES)).client.uploads
    assert not belongs("params/model/BatchNorm_0/scale")
    assert belongs("params/model/Conv_0/kernel")


def test_the_simplex_has_equal_angles():
    corners = simplex(6, CLASSES, np.random.default_rng(0))
    expected = np.full((CLASSES, CLASSES), -1 / (CLASSES - 1))
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(corners.T @ corners, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["fedrep", "ditto", "pfedme", "fedala", "fedetf"])
def test_guidance_goes_with_each(anchors, name):
    config = configuration({"name": name})
    term = guidance_term(anchors, GuidanceConfig(lambda_con=0.5), 6)
    wider = make_federation(DeepLinear(CLASSES, feature_dim=6), SIZES)
    guided = algorithm_of(config, model=wider.model).with_term(term)
    run, (state, data, shared, key) = wider.round(guided, chunk=2, config=config)
    before = jax.tree.map(np.array, state.params)
    state, metrics = run(state, data, shared, key)
    assert np.isfinite(metrics.train_loss)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, state.params)
    assert all(jax.tree.leaves(moved[term.name])), "guidance's head is trained and shared"
    assert moved["model"]["base"]["kernel"]


def test_clients_of_ditto_and_pfedme_keep_models_of_their_own(train):
    for case in (CASES[3], CASES[4]):
        state = train(case)[2][-1]
        heads = state.clients.params["model"]["head"]["kernel"]
        trained = np.any(
            heads != train(case)[2][0].clients.params["model"]["head"]["kernel"], (1, 2)
        )
        assert len(np.unique(heads[trained], axis=0)) == trained.sum() >= 3
