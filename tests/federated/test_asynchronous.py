"""Asynchronous rounds: the clock against a plain one, and rounds against clients trained alone."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import ClientRule, Finished, ServerRule
from semanticfl_jax.algorithms.weights import uniform
from semanticfl_jax.config import (
    AsynchronousConfig,
    ConfigError,
    ExperimentConfig,
    RuntimeConfig,
    from_dict,
)
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.arrivals import simulate
from semanticfl_jax.models import Outputs
from semanticfl_jax.randomness import HostStream, host_generator
from semanticfl_jax.simulation import experiment
from tests.federated.by_hand import ByHand, host, minus
from tests.federation import (
    CLASSES,
    CONFIG,
    SIZES,
    SoftmaxRegression,
    TwoLayers,
    algorithm_of,
    make_federation,
    noise_images,
    squares,
)

ASYNCHRONOUS = AsynchronousConfig(enabled=True, concurrency=4, speed_spread=1.5, most_stale=3)
BUFFERED = dataclasses.replace(CONFIG, clients_per_round=2, rounds=8, asynchronous=ASYNCHRONOUS)


def plainly(config, sizes):
    """The clock as a list that is searched for who is next: clients, staleness and time a step."""
    settings = config.asynchronous
    rng = host_generator(config.seed, HostStream.ARRIVALS)
    speeds = np.exp(settings.speed_spread * rng.standard_normal(len(sizes)))
    steps = [config.local_epochs * -(-size // config.batch_size) for size in sizes]
    under_way, buffer, done, version, now = [], [], [], 0, 0.0

    def begin():
        taken = {who for _, who, _ in under_way} | {who for who, _ in buffer}
        while True:
            who = int(rng.integers(len(sizes)))
            if who not in taken and sizes[who]:
                break
        under_way.append((now + steps[who] / speeds[who], who, version))

    for _ in range(settings.concurrency):
        begin()
    while version < config.rounds:
        first = min(under_way, key=lambda each: each[0])
        under_way.remove(first)
        now, who, began = first
        if version - began <= settings.most_stale:
            buffer.append((who, version - began))
        if len(buffer) == config.clients_per_round:
            done.append((tuple(buffer), now))
            buffer, version = [], version + 1
        begin()
    return done


@pytest.mark.parametrize("seed", range(3))
def test_reports_come_as_a_plain_clock_has_them(seed):
    config = dataclasses.replace(BUFFERED, seed=seed, rounds=40)
    arrivals = simulate(config, np.array(SIZES))
    for number, (reports, now) in enumerate(plainly(config, SIZES)):
        assert tuple(arrivals.clients[number]) == tuple(who for who, _ in reports)
        assert tuple(arrivals.staleness[number]) == tuple(stale for _, stale in reports)
        np.testing.assert_allclose(arrivals.clock[number], now, rtol=1e-6)
    assert np.all(np.diff(arrivals.clock) >= 0) and arrivals.staleness.max() == 3
    steep = dataclasses.replace(config.asynchronous, power=2.0)
    steeply = simulate(dataclasses.replace(config, asynchronous=steep), np.array(SIZES)).weights
    np.testing.assert_allclose(steeply, (1.0 + arrivals.staleness) ** -2, rtol=1e-6)
    np.testing.assert_allclose(arrivals.weights, 1 / np.sqrt(1.0 + arrivals.staleness), rtol=1e-6)
    shorter = simulate(dataclasses.replace(config, rounds=7), np.array(SIZES))
    np.testing.assert_array_equal(arrivals.clients[:7], shorter.clients)


def test_clients_without_images_never_report():
    sizes = np.array([3, 0, 8, 13, 5, 20, 10])
    assert 1 not in simulate(dataclasses.replace(BUFFERED, rounds=60), sizes).clients
    with pytest.raises(SemanticFLError, match="need 6 clients with images, and 5 have any"):
        simulate(BUFFERED, np.where(np.arange(7) < 2, 0, sizes))


@pytest.mark.parametrize(
    ("model", "algorithm", "devices", "chunk"),
    [
        (TwoLayers, {"name": "fedavg"}, 1, 2),
        # Its term pulls towards the model that the client received.
        (SoftmaxRegression, {"name": "fedprox", "fedprox": {"mu": 5.0}}, 2, 1),
    ],
)
def test_updates_are_those_of_the_models_that_clients_began_from(model, algorithm, devices, chunk):
    federation = make_federation(model(CLASSES), SIZES)
    chosen = from_dict(ExperimentConfig, {"algorithm": {**algorithm, "weights": "uniform"}})
    config = dataclasses.replace(BUFFERED, algorithm=chosen.algorithm)
    arrivals = simulate(config, federation.partition.sizes)
    assert len(np.unique(arrivals.staleness[:8])) > 2
    built = algorithm_of(config)
    run, (state, data, shared, key) = federation.round(
        built, devices, chunk, config, arrivals=arrivals
    )
    by_hand, versions = ByHand(federation, config, built), [host(state.model)]
    for number in range(8):
        state, metrics = run(state, data, shared, key)
        expected = versions[-1]
        for client, stale in zip(arrivals.clients[number], arrivals.staleness[number], strict=True):
            began = versions[number - stale]
            trained = by_hand.train(began, data, key, number, int(client), shared)
            scale = 0.5 / np.sqrt(1 + stale)  # of two reports
            # Running statistics move from where they are now towards the client's.
            since = began._replace(batch_stats=versions[-1].batch_stats)
            expected = jax.tree.map(
                lambda x, u, s=scale: x + s * u, expected, minus(trained, since)
            )
        chex.assert_trees_all_close(host(state.model), expected, rtol=1e-4, atol=1e-5)
        versions.append(host(state.model))
        assert sorted(int(c) for c in metrics.cohort if c >= 0) == sorted(arrivals.clients[number])
        np.testing.assert_allclose(metrics.figures["clock"], arrivals.clock[number])
        np.testing.assert_allclose(metrics.figures["staleness"], arrivals.staleness[number].mean())


class Settled(nn.Module):
    """Logits, and a variance that is a tenth of what it was as soon as a client has trained."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        running = self.variable("batch_stats", "var", lambda: jnp.ones(()))
        if train:
            running.value = 0.1 + 0 * running.value
        x = squares(images) / jnp.sqrt(running.value)
        return Outputs(nn.Dense(self.num_classes)(x), None)


def test_a_variance_never_falls_below_that_of_the_clients():
    federation = make_federation(Settled(CLASSES), SIZES)
    algorithm = algorithm_of(BUFFERED)
    algorithm = dataclasses.replace(algorithm, weights=uniform)
    arrivals = simulate(BUFFERED, federation.partition.sizes)
    run, (state, *rest) = federation.round(algorithm, 1, 2, BUFFERED, arrivals=arrivals)
    expected = 1.0
    for number in range(8):
        state, _ = run(state, *rest)
        expected += 0.5 * arrivals.weights[number].sum() * (0.1 - expected)
        np.testing.assert_allclose(state.batch_stats["var"], expected, rtol=1e-5)
    np.testing.assert_allclose(expected, 0.1, rtol=1e-2)


def test_a_resumed_run_is_the_same_and_tells_the_time(tmp_path):
    world = noise_images()
    config = dataclasses.replace(
        BUFFERED,
        dataset="digits",
        rounds=5,
        public_per_class=0,
        augmentation=(),
        eval_every=5,
        runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
    )

    def run(config, directory):
        options = {"dataset": world, "model": SoftmaxRegression(CLASSES), "say": None}
        return experiment.run(config, directory, progress=False, **options)

    through = run(config, tmp_path / "through")
    run(dataclasses.replace(config, rounds=3), tmp_path / "parts")
    parts = run(config, tmp_path / "parts")
    chex.assert_trees_all_equal(through.params, parts.params)
    clock = [row["clock"] for row in through.history]
    assert clock == [row["clock"] for row in parts.history] and np.all(np.diff(clock) >= 0)
    assert max(row["staleness"] for row in through.history) > 0


@pytest.mark.parametrize("half", ["client", "server"])
def test_an_algorithm_of_ones_own_may_send_nothing_besides(half):
    rules = {
        "client": ClientRule(lambda trained: Finished((), extra=trained.weight)),
        "server": ServerRule(
            lambda state, params, aggregate: (params, state),
            init=lambda model: jnp.zeros(()),
            broadcast=lambda state: state,
        ),
    }
    algorithm = dataclasses.replace(algorithm_of(BUFFERED), name="own", **{half: rules[half]})
    config = dataclasses.replace(BUFFERED, dataset="digits", public_per_class=0)
    options = {"dataset": noise_images(), "model": SoftmaxRegression(CLASSES), "say": None}
    with pytest.raises(SemanticFLError, match=r"own cannot be used with asynchronous\.enabled"):
        experiment.Simulation(config, algorithm=algorithm, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asynchronous": {"concurrency": 3}}, "concurrency is set, but asynchronous.enabled is f"),
        (
            {
                "asynchronous": {"enabled": True, "power": 1},
                "aggregation": {"aggregator": "median"},
            },
            "power is set, but to aggregation.aggregator=median all clients count alike",
        ),
        ({"algorithm": {"name": "scaffold"}}, "scaffold cannot be used with asynchronous.enabled"),
        ({"availability": {"dropout": 0.1}}, "availability.dropout cannot be set with async"),
        ({"on_divergence": "skip_client"}, "on_divergence=skip_client cannot be set with async"),
        ({"clients_per_round": 4}, r"num_clients must be at least .* \(12\), got 10"),
        (
            {"model": {"norm": "group"}, "privacy": {"name": "local", "noise_multiplier": 1.0}},
            "privacy.name cannot be set with asynchronous.enabled: no accountant",
        ),
    ],
)
def test_what_needs_a_cohort_that_begins_together_is_refused(changes, message):
    values = {"asynchronous": {"enabled": True}, "clients_per_round": 2, **changes}
    with pytest.raises(ConfigError, match=message):
        from_dict(ExperimentConfig, values)
