"""What stays with the clients: layers, statistics, models of their own; and what they send."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import guidance_term
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.ifca import _another
from semanticfl_jax.config import ConfigError, GuidanceConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.traffic import make_traffic
from tests.algorithms.two_layers import CASES, SIZES, configuration
from tests.federated.by_hand import ByHand, host, reported
from tests.federation import CLASSES, DeepLinear, TinyNet, TwoLayers, algorithm_of, make_federation


def test_what_stays_with_the_clients_is_no_traffic(linear_federation, train_linear):
    sizes = {}
    for name in ("fedavg", "fedper", "local", "qffl", "ditto", "ifca"):
        algorithm = train_linear({"name": name})[1]
        state, data, _, _ = linear_federation.start(algorithm, make_mesh(1))
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


def test_clients_of_ditto_and_pfedme_keep_models_of_their_own(train_linear):
    for case in (CASES[3], CASES[4]):
        state = train_linear(case)[2][-1]
        heads = state.clients.params["model"]["head"]["kernel"]
        trained = np.any(
            heads != train_linear(case)[2][0].clients.params["model"]["head"]["kernel"], (1, 2)
        )
        assert len(np.unique(heads[trained], axis=0)) == trained.sum() >= 3


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


def test_a_client_of_ifca_that_diverges_leaves_the_models_alone_that_it_did_not_choose():
    federation = make_federation(TwoLayers(CLASSES), SIZES)
    config = configuration({"name": "ifca", "ifca": {"models": 3}})
    algorithm = algorithm_of(config, model=federation.model)
    state = federation.start(algorithm, make_mesh(1))[0]
    trained = SimpleNamespace(
        model=jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.model),
        received=state.model,
        broadcast=algorithm.server.broadcast(state.server),
        own=jnp.int32(1),
        weight=jnp.float32(0.5),
    )
    weights, sums = algorithm.client.finish(trained).extra
    np.testing.assert_array_equal(weights, [0, 0.5, 0])
    for leaf in jax.tree.leaves(sums):
        assert np.isnan(leaf[1]).all() and not np.any(leaf[::2])


def test_another_model_of_ifca_begins_elsewhere_with_the_same_spread():
    x = np.random.default_rng(0).normal(3, 2, (40, 50)).astype(np.float32)
    found = _another({"a": x, "b": x}, 0.75, jax.random.key(1))
    for leaf in found.values():
        assert np.std(leaf) == pytest.approx(np.std(x), rel=0.05)
        assert np.mean(leaf) == pytest.approx(np.mean(x), abs=0.15)
        assert np.corrcoef(np.ravel(leaf), np.ravel(x))[0, 1] == pytest.approx(0.8, abs=0.03)
    one, other = (np.ravel(leaf - 0.8 * x) for leaf in found.values())
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


@pytest.mark.parametrize(
    "case",
    [{"name": "ditto"}, {"name": "apfl"}, {"name": "pfedme", "pfedme": {"inner_steps": 1}}],
    ids=lambda case: case["name"],
)
def test_own_models_follow_the_running_statistics(case):
    # Those of `TwoLayers` are of the images alone, whatever the parameters.
    federation, config = make_federation(TwoLayers(CLASSES), SIZES), configuration(case)
    algorithm = algorithm_of(config, model=federation.model)
    run, (state, data, shared, key) = federation.round(algorithm, chunk=2, config=config)
    before = host(state.model)
    state, metrics = run(state, data, shared, key)
    clients, by_hand = reported(metrics), ByHand(federation, config)
    trained = [by_hand.train(before, data, key, 0, c).batch_stats["mean"] for c in clients]
    own = np.asarray(state.clients.batch_stats["mean"])[clients]
    np.testing.assert_allclose(own, trained, rtol=1e-5, atol=1e-6)
    weights = None if case["name"] == "pfedme" else [SIZES[c] for c in clients]
    average = np.average(trained, axis=0, weights=weights)
    np.testing.assert_allclose(state.batch_stats["mean"], average, rtol=1e-5, atol=1e-6)


def test_what_a_step_reports_is_of_the_model_before_it():
    # In a round of one step, the loss is that of FedAvg; FedSAM's statistics are, too.
    federation, found = make_federation(TinyNet(CLASSES), SIZES), {}
    for case in (
        {"name": "fedavg"},
        {"name": "fedsam", "fedsam": {"rho": 0.5}},
        {"name": "pfedme", "pfedme": {"inner_steps": 3, "inner_rate": 0.5}},
    ):
        config = configuration(case, local_epochs=1, batch_size=16)
        run, start = federation.round(algorithm_of(config), chunk=2, config=config)
        found[case["name"]] = run(*start)
    (fedavg, metrics), (fedsam, _) = found["fedavg"], found["fedsam"]
    for name in ("fedsam", "pfedme"):
        np.testing.assert_allclose(found[name][1].train_loss, metrics.train_loss, rtol=1e-5)
    chex.assert_trees_all_close(fedsam.batch_stats, fedavg.batch_stats, rtol=1e-6, atol=1e-7)


def test_the_simplex_of_fedetf_has_no_bias():
    algorithm = algorithm_of(configuration({"name": "fedetf"}), model=TwoLayers(CLASSES))
    ones = {"kernel": jnp.ones((5, CLASSES)), "bias": jnp.ones(CLASSES)}
    model = Model({"model": {"base": {}, "head": ones}}, {})
    for found in (algorithm.server.evaluated((), model), algorithm.client.start((), model, ())):
        assert not np.any(found.params["model"]["head"]["bias"])


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
