"""All clients on their own test images, with every model, against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AvailabilityConfig
from semanticfl_jax.data.client_test import hold_out
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated import client_tests
from semanticfl_jax.federated.client_tests import make_client_tests
from semanticfl_jax.reporting.client_tests import over_clients
from semanticfl_jax.reporting.metric import ACCURACY
from semanticfl_jax.tasks import CLASSIFICATION
from tests.algorithms.deep_linear import Solver, softmax
from tests.algorithms.two_layers import configuration, weights_of
from tests.federation import CLASSES, MEAN, STD, DeepLinear, algorithm_of, make_federation, squares

SIZES, STEPS = (9, 16, 1, 13, 4), 3
CONFIG = configuration(
    {"name": "fedper"},
    num_clients=len(SIZES),
    client_test={"share": 0.3, "fine_tune_steps": STEPS},
    runtime={"eval_batch_size": 2},
)


@pytest.fixture(scope="module")
def federation():
    return make_federation(DeepLinear(CLASSES), SIZES)


@pytest.fixture(scope="module")
def split(federation):
    """The federation with the training part of its partition, and the part that is tested."""
    own, tested = hold_out(federation.partition, federation.labels, 0.3, 0)
    return dataclasses.replace(federation, partition=own), tested


@pytest.fixture(scope="module")
def tested(split):
    """The state after two rounds, and the figures of all clients, for a way of computing them."""
    federation, held_out = split

    def test(devices, chunk, memory):
        algorithm = algorithm_of(CONFIG, model=federation.model)
        run, (state, data, shared, key) = federation.round(
            algorithm, devices, chunk, CONFIG, memory
        )
        for _ in range(2):
            state, _ = run(state, data, shared, key)
        test_clients = make_client_tests(
            federation.model,
            algorithm,
            CONFIG,
            make_mesh(devices),
            data,
            key,
            held_out,
            MEAN,
            STD,
            clients_per_chunk=chunk,
        )
        figures = test_clients(state)
        return jax.tree.map(np.array, state), figures

    return test


def at_the_start(split, config, server=lambda state: state.server):
    """The state before any round, with another state of the server, and all clients' figures."""
    federation, held_out = split
    algorithm = algorithm_of(config, model=federation.model)
    state, data, _, key = federation.start(algorithm, make_mesh(1))
    state = state._replace(server=server(state))
    test = make_client_tests(
        federation.model, algorithm, config, make_mesh(1), data, key, held_out, MEAN, STD
    )
    return state, test(state)


def figures_by_hand(federation, w, rows):
    """Accuracy and loss of one client's test images."""
    if not len(rows):
        return np.nan, np.nan
    x, y = inputs(federation)[rows], federation.labels[rows]
    p = softmax(x @ w["base"] @ w["head"])
    return (p.argmax(1) == y).mean(), -np.log(p[np.arange(len(y)), y]).mean()


def inputs(federation):
    return squares((federation.images / 255.0 - np.array(MEAN)) / np.array(STD))


def fine_tuned(federation, w, client, number):
    """Some steps of plain training on the client's training images, from a solver at rest."""
    key = federation.key
    for part in (20, number, client):
        key = jax.random.fold_in(key, part)
    order_key = jax.random.split(key, 3)[0]
    own, solver, done = federation.partition.client(client), Solver(CONFIG), 0
    for epoch in range(STEPS):
        order = np.asarray(epoch_order(jax.random.fold_in(order_key, epoch), len(own), len(own)))
        for start in range(0, len(own), CONFIG.batch_size):
            if done < STEPS:
                rows = own[order[start : start + CONFIG.batch_size]]
                x, onehot = inputs(federation)[rows], np.eye(CLASSES)[federation.labels[rows]]
                by_z = (softmax(x @ w["base"] @ w["head"]) - onehot) / len(rows)
                features = x @ w["base"]
                gradient = {"base": x.T @ by_z @ w["head"].T, "head": features.T @ by_z}
                w, done = solver.step(w, gradient), done + 1
    return w


@pytest.mark.parametrize(
    ("devices", "chunk", "memory"), [(1, 1, "device"), (2, 2, "device"), (2, 1, "host")]
)
def test_every_client_is_tested_with_every_model(
    split, tested, monkeypatch, devices, chunk, memory
):
    federation, held_out = split
    monkeypatch.setattr(client_tests, "_STATES", 1)  # one chunk a device at a time
    state, figures = tested(devices, chunk, memory)
    assert set(figures) == {"global", "personal", "fine_tuned"}
    common = {name: x.astype(float) for name, x in weights_of(state.params).items()}
    heads = state.clients.params["model"]["head"]["kernel"]
    for client in range(len(SIZES)):
        used = {
            "global": common,
            "personal": {**common, "head": heads[client]},
            "fine_tuned": fine_tuned(federation, common, client, int(state.round)),
        }
        for name, w in used.items():
            expected = figures_by_hand(federation, w, held_out.client(client))
            found = [x[client] for x in figures[name]]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.isnan(figures["global"].headline[2])


def test_without_personal_models_only_the_servers_is_tested(split):
    config = configuration({"name": "fedsam"}, num_clients=len(SIZES), client_test={"share": 0.3})
    _, found = at_the_start(split, config)
    assert set(found) == {"global"}
    row = over_clients(found, ACCURACY, split[1].sizes > 0)
    known = np.sort(found["global"].headline[[0, 1, 3, 4]])
    assert row["global_client_accuracy"] == pytest.approx(known.mean())
    assert row["global_client_accuracy_worst_decile"] == pytest.approx(known[0])
    assert row["global_client_accuracy_std"] == pytest.approx(known.std())


def test_fine_tuning_goes_with_settings_that_only_the_algorithm_uses():
    config = configuration(
        {"name": "feddifrc"},
        client_test={"share": 0.3, "fine_tune_steps": STEPS},
        guidance={"resolution": 64},
    )
    tune = client_tests._make_fine_tuning(DeepLinear(CLASSES), config, MEAN, STD, CLASSIFICATION)
    assert callable(tune)


def test_the_servers_model_is_the_one_that_is_tested_on_the_test_set_also_before_fine_tuning(split):
    # FedExP tests the mean of the last two models: here of these weights and of zeros.
    federation, held_out = split
    config = dataclasses.replace(CONFIG, algorithm=configuration({"name": "fedexp"}).algorithm)
    state, found = at_the_start(
        split, config, server=lambda state: jax.tree.map(np.zeros_like, state.params)
    )
    half = {name: 0.5 * x.astype(float) for name, x in weights_of(state.params).items()}
    for client in (0, 1, 3, 4):
        tuned = fine_tuned(federation, half, client, 0)
        for name, w in (("global", half), ("fine_tuned", tuned)):
            expected = figures_by_hand(federation, w, held_out.client(client))[1]
            np.testing.assert_allclose(found[name].loss[client], expected, rtol=1e-4)


def test_a_clients_choice_of_ifca_is_not_the_servers(split):
    # Most weight chose the second model, and every client the first.
    federation, held_out = split
    config = configuration({"name": "ifca"}, num_clients=len(SIZES), client_test={"share": 0.3})
    state, found = at_the_start(
        split, config, server=lambda state: state.server._replace(chosen=jnp.array([0.0, 1.0]))
    )
    first = weights_of(state.params)
    second = {name: x[0] for name, x in weights_of(state.server.params).items()}
    for client in (0, 1, 3, 4):
        for name, w in (("personal", first), ("global", second)):
            expected = figures_by_hand(federation, w, held_out.client(client))[1]
            np.testing.assert_allclose(found[name].loss[client], expected, rtol=1e-4)


def test_fine_tuning_does_all_its_steps_at_the_full_rate(split):
    # Whoever is slow in rounds, and however rates fall in their epochs.
    federation, held_out = split
    config = dataclasses.replace(
        CONFIG,
        availability=AvailabilityConfig(straggler_share=1.0, straggler_min_work=0.0),
        optimizer=dataclasses.replace(CONFIG.optimizer, epoch_decay=0.1),
    )
    state, found = at_the_start(split, config)
    common = {name: x.astype(float) for name, x in weights_of(state.params).items()}
    for client in (0, 1, 3, 4):
        tuned = fine_tuned(federation, common, client, 0)
        expected = figures_by_hand(federation, tuned, held_out.client(client))[1]
        np.testing.assert_allclose(found["fine_tuned"].loss[client], expected, rtol=1e-4)
