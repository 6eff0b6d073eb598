"""What an algorithm measures in a round: terms, clients and server, against plain NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import AlgorithmConfig, AvailabilityConfig
from semanticfl_jax.data.federated import epoch_order
from semanticfl_jax.federated.cohort import straggle
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models.losses import masked_mean
from semanticfl_jax.randomness import epoch_keys, local_keys
from semanticfl_jax.reporting.writers.metrics import read_metrics
from semanticfl_jax.simulation.rows import COLUMNS, columns
from semanticfl_jax.simulation.together import run_together
from tests.federated.by_hand import ByHand, host, minus, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    STD,
    UNRELIABLE,
    SoftmaxRegression,
    algorithm_of,
    make_federation,
    noise_images,
    squares,
)

MU, LEVEL = 0.5, 0.1
EMPTY, BAD = 4, 2  # a client without images, and one whose loss can be made infinite
SIZES = (3, 5, 8, 13, 0, 20, 10)
PLAIN = dataclasses.replace(
    CONFIG, clients_per_round=len(SIZES), momentum=0.0, weight_decay=0.0, augmentation=()
)
SOME = dataclasses.replace(PLAIN, clients_per_round=5)
LATE = dataclasses.replace(PLAIN, availability=UNRELIABLE.availability)


def near(inputs):
    difference = jax.tree.map(jnp.subtract, inputs.trained, inputs.received.params)
    return MU / 2 * squared(difference)


def level(inputs):
    return LEVEL * masked_mean(inputs.labels.astype(jnp.float32), inputs.mask)


def squared(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def finish(trained):
    moved = squared(jax.tree.map(jnp.subtract, trained.model.params, trained.received.params))
    # Of a client without a step, zero divided by zero.
    return sfl.Finished((), figures={"of_a_step": moved / trained.steps, "steps": trained.steps})


def measure_server(state, aggregate):
    return {"length": squared(aggregate.update), "participants": aggregate.participants}


TERMS = (sfl.LossTerm("near", near), sfl.LossTerm("the level", level))
MEASURED = dataclasses.replace(
    FEDAVG,
    terms=TERMS,
    client=sfl.ClientRule(finish),
    server=dataclasses.replace(FEDAVG.server, figures=measure_server),
)


@pytest.fixture(scope="module")
def ragged():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


def steps_of(client, own_key, config):
    whole = config.local_epochs * -(-SIZES[client] // config.batch_size)
    return int(straggle(local_keys(own_key).work, jnp.int32(whole), config.availability))


def train(federation, start, client, own_key, config):
    """One client's steps in NumPy: sums over its samples, and what it moved by."""
    owned = federation.partition.client(client)
    inputs = np.asarray(squares((federation.images / 255.0 - np.array(MEAN)) / np.array(STD)))
    keys = epoch_keys(local_keys(own_key).order, config.local_epochs)
    batches = []
    for key in keys:
        shuffled = owned[np.asarray(epoch_order(key, len(owned), len(owned)))]
        batches += np.split(shuffled, range(config.batch_size, len(owned), config.batch_size))
    w, sums = start.astype(np.float64), np.zeros(4)
    for rows in batches[: steps_of(client, own_key, config)]:
        x = np.concatenate([inputs[rows], np.ones((len(rows), 1))], axis=1)
        p = np.exp(x @ w)
        p /= p.sum(axis=1, keepdims=True)
        labels = federation.labels[rows]
        task = -np.log(p[np.arange(len(rows)), labels]).mean()
        close, high = MU / 2 * np.sum((w - start) ** 2), LEVEL * labels.mean()
        sums += len(rows) * np.array([task + close + high, close, high, 1])
        gradient = x.T @ (p - np.eye(CLASSES)[labels]) / len(rows) + MU * (w - start)
        w = w - config.learning_rate * gradient
    return sums, w - start


def expected_row(federation, start, clients, key, number, config):
    """What a round of `MEASURED` tells, in NumPy; `clients` are those who train."""
    done, steps = [], []
    for client in clients:
        own_key = key
        for fold in (1, number, client):
            own_key = jax.random.fold_in(own_key, fold)
        done.append(train(federation, start, client, own_key, config))
        steps.append(steps_of(client, own_key, config))
    total, shares = sum(sums for sums, _ in done), np.array([SIZES[c] for c in clients], float)
    update = np.tensordot(shares / shares.sum(), np.stack([moved for _, moved in done]), 1)
    return {
        "train_loss": total[0] / total[3],
        "train_loss_near": total[1] / total[3],
        "train_loss_the level": total[2] / total[3],
        "of_a_step": np.mean([np.sum(u**2) / n for (_, u), n in zip(done, steps, strict=True)]),
        "steps": np.mean(steps),
        "length": np.sum(update**2),
        "participants": len(clients),
    }


def flat(params):
    layer = params["model"]["Dense_0"]
    return np.concatenate([layer["kernel"], layer["bias"][None]])


def found_row(metrics):
    return {"train_loss": float(metrics.train_loss), **jax.tree.map(float, metrics.figures)}


def require_rounds(federation, config, devices, chunk, algorithm=MEASURED, left_out=(), **options):
    run, (state, data, shared, key) = federation.round(
        algorithm, devices, chunk, config, some_empty=True, **options
    )
    for number in range(2):
        start = flat(host(state.params))
        state, metrics = run(state, data, shared, key)
        clients = [c for c in reported(metrics) if c not in (EMPTY, *left_out)]
        expected = expected_row(federation, start, clients, key, number, config)
        found = found_row(metrics)
        assert expected.keys() <= found.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    return found


@pytest.mark.parametrize(
    ("config", "devices", "chunk"),
    [(PLAIN, 1, 1), (PLAIN, 2, 2), (PLAIN, 1, 3), (SOME, 8, 1), (LATE, 1, 3), (LATE, 2, 1)],
)
def test_a_round_tells_what_numpy_measures(ragged, config, devices, chunk):
    found = require_rounds(ragged, config, devices, chunk)
    assert found["train_loss_near"] > 0


def test_who_is_left_out_is_not_measured(ragged):
    owned = np.isin(np.arange(len(ragged.labels)), ragged.partition.client(BAD))

    def poison(inputs):
        hit = jnp.any(inputs.rows["bad"] & inputs.mask)
        return jnp.sum(inputs.trained["model"]["Dense_0"]["kernel"]) * jnp.where(hit, jnp.inf, 0.0)

    term = sfl.LossTerm("poison", poison, per_sample={"bad": jnp.asarray(owned)})
    algorithm = MEASURED.with_term(term)
    found = require_rounds(ragged, PLAIN, 1, 3, algorithm, (BAD,), skip_diverged=True)
    assert found["train_loss_poison"] == 0


def test_a_round_without_reports_measures_nothing(ragged):
    config = dataclasses.replace(PLAIN, availability=AvailabilityConfig(dropout=0.999999))
    run, start = ragged.round(MEASURED, config=config)
    _, metrics = run(*start)
    assert not metrics.reported.any()
    assert all(np.isnan(value) for value in found_row(metrics).values())


def test_clients_with_as_many_steps_and_fedexps_server_step():
    federation = make_federation(SoftmaxRegression(CLASSES), (8,) * 7)
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig("fedexp"))
    algorithm = algorithm_of(config).with_term(TERMS[1])
    run, (state, data, shared, key) = federation.round(algorithm, chunk=5, config=config)
    before, by_hand = host(state.model), ByHand(federation, config)
    _, metrics = run(state, data, shared, key)
    clients = reported(metrics)
    updates = []
    for client in clients:
        trained = by_hand.train(before, data, key, 0, client)
        updates.append(flat(minus(trained.params, before.params)))
    spread = np.mean([np.sum(u**2) for u in updates])
    length = np.sum(np.mean(updates, axis=0) ** 2) + config.algorithm.settings.epsilon
    rate = max(1, spread / (2 * length))
    assert metrics.figures.keys() == {"server_step", "train_loss_the level"}
    np.testing.assert_allclose(metrics.figures["server_step"], rate, rtol=1e-4)
    labels = np.concatenate([federation.labels[federation.partition.client(c)] for c in clients])
    expected = LEVEL * labels.mean()
    np.testing.assert_allclose(metrics.figures["train_loss_the level"], expected, rtol=1e-5)


def test_a_rule_that_descends_by_itself_has_no_terms_and_apfl_tells_its_mixing(ragged):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig("apfl"))
    algorithm = algorithm_of(config).with_term(TERMS[0])
    run, start = ragged.round(algorithm, chunk=2, config=config, some_empty=True)
    state, metrics = run(*start)
    assert metrics.figures.keys() == {"mixing"}
    clients = [client for client in reported(metrics) if client != EMPTY]
    mixing = np.mean(np.asarray(state.clients.alpha)[clients])
    np.testing.assert_allclose(metrics.figures["mixing"], mixing, rtol=1e-5)
    assert mixing != config.algorithm.settings.alpha


def test_figures_do_not_travel(ragged):
    def silent(trained):
        return finish(trained)._replace(figures={})

    sent = []
    for rule in (finish, silent):
        algorithm = dataclasses.replace(MEASURED, client=sfl.ClientRule(rule))
        _, (state, data, _, _) = ragged.round(algorithm)
        traffic = make_traffic(algorithm, state, data)
        sent.append((traffic.up, traffic.down, traffic.up_once, traffic.down_once.tolist()))
    assert sent[0] == sent[1]


def test_rules_know_whose_they_are(ragged):
    def descend(seen):
        (loss, statistics), gradient = seen.value_and_grad(seen.model)
        own = jnp.where(seen.client == seen.own, seen.own, -100)
        return sfl.Descent(loss, statistics, gradient, own)

    rule = sfl.ClientRule(
        lambda trained: sfl.Finished((), figures={"id": trained.client, "own": trained.own}),
        begin=lambda seen: (seen.received, seen.client),
        descend=descend,
    )
    algorithm = dataclasses.replace(FEDAVG, client=rule)
    run, start = ragged.round(algorithm, chunk=3, config=SOME, some_empty=True)
    _, metrics = run(*start)
    clients = [client for client in reported(metrics) if client != EMPTY]
    assert found_row(metrics)["id"] == pytest.approx(np.mean(clients))
    assert found_row(metrics)["own"] == pytest.approx(np.mean(clients))


RUN = sfl.ExperimentConfig(
    num_clients=3,
    clients_per_round=2,
    rounds=3,
    local_epochs=1,
    batch_size=16,
    eval_every=3,
    public_per_class=0,
    augmentation=(),
    runtime=sfl.RuntimeConfig(num_devices=1, eval_batch_size=16, rounds_per_dispatch=1),
)
FIGURES = {"train_loss_near", "train_loss_the level", "of_a_step", "steps", "length"}
FIGURES |= {"participants", "train_loss"}


def options(**more):
    dataset, model = noise_images(), SoftmaxRegression(CLASSES)
    return {"dataset": dataset, "model": model, "say": None, "progress": False, **more}


@pytest.fixture(scope="module")
def history():
    """The rows of a run, round by round."""
    return sfl.run(RUN, **options(algorithm=MEASURED)).history


def require_same_figures(rows, expected):
    assert [row["round"] for row in rows] == [row["round"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys() >= FIGURES
        for name in FIGURES:
            assert row[name] == pytest.approx(other[name], rel=1e-4), name


def test_rows_of_several_rounds_in_a_dispatch_and_of_resumed_runs(history, tmp_path):
    assert all(np.isfinite([row[name] for name in FIGURES]).all() for row in history)
    blocks = dataclasses.replace(RUN, runtime=sfl.RuntimeConfig(1, rounds_per_dispatch=3))
    require_same_figures(sfl.run(blocks, **options(algorithm=MEASURED)).history, history)
    short = dataclasses.replace(RUN, rounds=2)
    sfl.run(short, tmp_path, **options(algorithm=MEASURED))
    resumed = sfl.run(RUN, tmp_path, **options(algorithm=MEASURED)).history
    require_same_figures(resumed, history)
    require_same_figures(read_metrics(tmp_path), history)


def test_rows_of_several_seeds_in_one_program(history, tmp_path):
    configs = {f"run-seed{seed}": dataclasses.replace(RUN, seed=seed) for seed in (0, 1)}
    assert run_together(configs, tmp_path, **options(algorithm=MEASURED)) == []
    require_same_figures(read_metrics(tmp_path / "run-seed0"), history)
    other = read_metrics(tmp_path / "run-seed1")[-1]
    assert other["train_loss_near"] != history[-1]["train_loss_near"]


def test_the_names_of_a_rows_columns_are_known_before_it():
    config = dataclasses.replace(
        RUN,
        rounds=1,
        learning_rate=1e38,
        client_test=sfl.ClientTestConfig(share=0.2),
    )
    simulation = sfl.Simulation(config, **options())
    (row,) = simulation.run().history
    known = columns(simulation.parts)
    assert "diverged_count" in row and row.keys() <= known
    assert {*COLUMNS} - row.keys() == {"epsilon", "private"}
