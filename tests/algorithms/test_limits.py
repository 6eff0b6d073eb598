"""Settings at which personal models and local objectives are FedAvg, or training alone."""

import chex
import pytest


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
def test_limiting_cases_are_fedavg_bit_for_bit(train_linear, case):
    fedavg, own = train_linear({"name": "fedavg"}), train_linear(case)
    chex.assert_trees_all_equal(own[2][-1].model, fedavg[2][-1].model)
    assert own[2][-1].clients == ()


def test_the_common_model_of_ditto_and_apfl_is_fedavgs(train_linear):
    fedavg = train_linear({"name": "fedavg"})[2][-1].model
    for name in ("ditto", "apfl"):
        model = train_linear({"name": name})[2][-1].model
        chex.assert_trees_all_close(model, fedavg, rtol=1e-6, atol=1e-7)


def test_ditto_without_pull_is_local_training(train_linear):
    ditto = train_linear({"name": "ditto", "ditto": {"weight": 0.0}})[2][-1]
    local = train_linear({"name": "local"})[2][-1]
    chex.assert_trees_all_close(ditto.clients, local.clients, rtol=1e-6, atol=1e-7)


def test_apfl_without_a_common_share_is_local_training(train_linear):
    apfl = train_linear({"name": "apfl", "apfl": {"alpha": 1.0, "adaptive": False}})[2][-1]
    local = train_linear({"name": "local"})[2][-1]
    chex.assert_trees_all_close(apfl.clients.params, local.clients.params, rtol=1e-5, atol=1e-6)


def test_fedala_without_learning_is_fedavg(train_linear):
    fedala = train_linear({"name": "fedala", "fedala": {"rate": 0.0}})[2][-1].model
    fedavg = train_linear({"name": "fedavg"})[2][-1].model
    chex.assert_trees_all_close(fedala, fedavg, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"availability": {"dropout": 0.5}}])
def test_qffl_without_fairness_is_uniform_fedavg(train_linear, changes):
    qffl = train_linear({"name": "qffl", "qffl": {"q": 0.0}}, **changes)[2][-1].model
    fedavg = train_linear({"name": "fedavg", "weights": "uniform"}, **changes)[2][-1].model
    chex.assert_trees_all_close(qffl, fedavg, rtol=1e-5, atol=1e-6)
