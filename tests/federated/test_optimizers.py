"""Optimisers and schedules beside optax's own, and rates as arguments of the compiled round."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import semanticfl_jax as sfl
from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, OptimizerConfig, from_dict
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.federated.optimizers import client_optimizer
from semanticfl_jax.federated.rates import Rates, make_rates, reads_server_rate
from semanticfl_jax.models import Network
from semanticfl_jax.registry import (
    ALGORITHMS,
    OPTIMIZERS,
    SCHEDULES,
    SERVER_OPTIMIZERS,
)
from tests.built_in import built_in
from tests.federation import (
    CLASSES,
    CONFIG,
    MEAN,
    SIZES,
    STD,
    SoftmaxRegression,
    TwoLayers,
    algorithm_of,
    make_federation,
    noise_images,
)

RATE, DECAY = 0.1, 0.01


def descend(config, steps=4):
    """Parameters after some steps down a bowl, as a client takes them."""
    params = {"x": jnp.array([1.0, -2.0, 0.5])}
    optimizer = client_optimizer(config)
    state = optimizer.init(params)
    for _ in range(steps):
        direction, state = optimizer.update(jax.grad(bowl)(params), state, params)
        params = jax.tree.map(lambda p, d: p - RATE * d, params, direction)
    return params


def descend_by_optax(reference, steps=4):
    """The same, by an optimiser of optax that has the rate in it."""
    params = {"x": jnp.array([1.0, -2.0, 0.5])}
    state = reference.init(params)
    for _ in range(steps):
        updates, state = reference.update(jax.grad(bowl)(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def bowl(params):
    return jnp.sum(jnp.array([1.0, 3.0, 0.2]) * params["x"] ** 2)


@pytest.mark.parametrize(
    ("optimizer", "changes", "reference"),
    [
        ({}, {"momentum": 0.0}, optax.sgd(RATE)),
        ({}, {}, optax.sgd(RATE, momentum=0.9)),
        ({"sgd": {"nesterov": True}}, {}, optax.sgd(RATE, momentum=0.9, nesterov=True)),
        ({"name": "adam", "adam": {"beta1": 0.8}}, {}, optax.adam(RATE, b1=0.8)),
        ({"name": "adamw"}, {}, optax.adamw(RATE, weight_decay=DECAY)),
        ({"name": "rmsprop"}, {}, optax.rmsprop(RATE)),
        ({"name": "adagrad"}, {}, optax.adagrad(RATE)),
    ],
)
def test_client_optimizers_are_optaxs(optimizer, changes, reference):
    values = {"optimizer": optimizer, "weight_decay": DECAY, **changes}
    config = from_dict(ExperimentConfig, values)
    if optimizer.get("name") != "adamw":  # weight decay enters the gradient
        reference = optax.chain(optax.add_decayed_weights(DECAY), reference)
    chex.assert_trees_all_close(descend(config), descend_by_optax(reference), rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        ({}, lambda t: 1.0),
        ({"schedule": "exponential", "exponential": {"decay": 0.9}}, lambda t: 0.9**t),
        ({"schedule": "cosine"}, optax.cosine_decay_schedule(1.0, 20)),
        (
            {"schedule": "cosine", "cosine": {"final": 0.2}},
            optax.cosine_decay_schedule(1.0, 20, alpha=0.2),
        ),
        (
            {"schedule": "step", "step": {"every": 5, "factor": 0.5}},
            optax.exponential_decay(1.0, 5, 0.5, staircase=True),
        ),
        ({"warmup_rounds": 4}, lambda t: min(1.0, (t + 1) / 4)),
    ],
)
def test_rates_follow_the_schedule(optimizer, reference):
    values = {"optimizer": optimizer, "rounds": 20, "learning_rate": 0.3}
    rates = make_rates(from_dict(ExperimentConfig, values))
    expected = np.array([0.3 * float(reference(t)) for t in range(20)])
    np.testing.assert_allclose(
        rates(0, 20).client, expected, rtol=1e-5
    )  # optax computes in float32
    np.testing.assert_allclose(rates(7, 3).client, expected[7:10], rtol=1e-5)
    assert rates(0, 20).client.dtype == np.float32
    np.testing.assert_array_equal(rates(0, 20).server, np.ones(20))


def test_the_servers_rate_has_a_schedule_of_its_own():
    optimizer = OptimizerConfig(
        server_schedule="exponential", settings={"exponential": {"decay": 0.5}}
    )
    config = ExperimentConfig(algorithm=AlgorithmConfig("fedadam"), optimizer=optimizer)
    found = make_rates(config)(0, 3)
    np.testing.assert_allclose(found.server, [0.01, 0.005, 0.0025], rtol=1e-6)
    np.testing.assert_allclose(found.client, [0.01] * 3, rtol=1e-6)


@pytest.fixture(scope="module")
def small():
    return make_federation(SoftmaxRegression(CLASSES), SIZES)


@pytest.mark.parametrize("name", ["fedavg", "scaffold", "fednova", "fedadam"])
def test_a_round_at_other_rates_is_that_of_a_run_with_those(small, name):
    settings = {"mu": 0.3} if name == "fednova" else None
    algorithm = AlgorithmConfig(name, settings=settings, weights="size")
    config = dataclasses.replace(CONFIG, algorithm=algorithm)
    other = dataclasses.replace(
        config,
        learning_rate=0.02,
        algorithm=dataclasses.replace(algorithm, server_learning_rate=0.3),
    )
    run, start = small.round(algorithm_of(config), config=config)
    state, _ = run.run(*start, Rates(np.float32(0.02), np.float32(0.3)))
    expected, start = small.round(algorithm_of(other), config=other)
    chex.assert_trees_all_equal(state, expected(*start)[0])
    plain, _ = run(*small.start(algorithm_of(config), make_mesh(1)))
    assert not np.array_equal(jax.tree.leaves(plain.params)[0], jax.tree.leaves(state.params)[0])


OWN_STEP = sfl.ServerRule(
    lambda state, params, seen: (jax.tree.map(jnp.add, params, seen.update), state)
)
OWN_RATE = sfl.ServerRule(
    lambda state, params, seen: (
        jax.tree.map(lambda x, u: x + seen.rate * u, params, seen.update),
        state,
    )
)


def test_a_servers_step_of_its_own_is_replaced_by_no_other(own):
    chosen = AlgorithmConfig(server_optimizer="adam")
    adam = algorithm_of(ExperimentConfig(algorithm=chosen))
    own(ALGORITHMS, "mine", adam)
    mine = ExperimentConfig(algorithm=dataclasses.replace(chosen, name="mine"))
    assert algorithm_of(mine).server.optimizer == "adam"
    own(ALGORITHMS, "mine", dataclasses.replace(adam, server=OWN_STEP))
    with pytest.raises(ConfigError, match=r"must be auto with algorithm.name=mine, got 'adam'"):
        algorithm_of(mine)


def test_built_in_algorithms_take_the_servers_optimiser_and_rate_or_say_why_not():
    network, key = TwoLayers(CLASSES), jax.random.key(0)
    for name in built_in(ALGORITHMS):
        config = ExperimentConfig(algorithm=AlgorithmConfig(name))
        made, traits = algorithm_of(config, model=network), ALGORITHMS[name].traits
        assert made.server.optimizer is not None or traits.server_step
        first = functools.partial(init_model, Network(network), made, (8, 8, 3))
        reads = reads_server_rate(made, jax.eval_shape(first, key), 3)
        assert reads == (traits.server_rate is None or traits.silent), name


@pytest.mark.parametrize("given", ["object", "name"])
@pytest.mark.parametrize("field", ["algorithm.server_learning_rate", "optimizer.server_schedule"])
def test_a_servers_rate_that_its_step_ignores_is_refused(own, given, field):
    name = "mine" if given == "name" else "fedavg"

    def start(server):
        made = sfl.Algorithm("mine", server)
        own(ALGORITHMS, "mine", made)
        rate, schedule = (0.5, "constant") if "rate" in field else ("auto", "cosine")
        config = dataclasses.replace(
            CONFIG,
            public_per_class=0,
            algorithm=AlgorithmConfig(name, server_learning_rate=rate),
            optimizer=OptimizerConfig(server_schedule=schedule),
        )
        options = {} if given == "name" else {"algorithm": made}
        network, data = SoftmaxRegression(CLASSES), noise_images()
        sfl.Simulation(config, dataset=data, model=network, say=None, **options).close()

    with pytest.raises(ConfigError, match=rf"{field} is set and has no effect with mine"):
        start(OWN_STEP)
    start(OWN_RATE)


def test_fedadagrad_is_its_equations(small):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(server_optimizer="adagrad"))
    mean, start = small.round()
    x = jax.tree.map(np.array, start[0].params)
    averaged = jax.tree.map(np.array, mean(*start)[0].params)
    run, start = small.round(algorithm_of(config), config=config)
    found = run(*start)[0].params

    def step(x, y):
        delta = y - x
        return x + 0.01 * 0.1 * delta / (np.sqrt(1e-6 + delta**2) + 1e-3)

    chex.assert_trees_all_close(found, jax.tree.map(step, x, averaged), rtol=1e-4, atol=1e-6)


def test_a_sweep_over_rates_schedules_and_seeds_compiles_once():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(60) % CLASSES
    dataset = sfl.ImageDataset.from_arrays(
        images[:40], labels[:40], images[40:], labels[40:], mean=MEAN, std=STD
    )
    lines = []

    def run(seed, rate, schedule):
        config = ExperimentConfig(
            num_clients=2,
            clients_per_round=2,
            rounds=2,
            local_epochs=1,
            batch_size=7,
            augmentation=(),
            seed=seed,
            learning_rate=rate,
            optimizer=OptimizerConfig(schedule=schedule),
            runtime=sfl.RuntimeConfig(num_devices=1),
        )
        halves = [np.arange(20), np.arange(20, 40)]
        lines.clear()
        return sfl.run(
            config,
            dataset=dataset,
            partition=halves,
            model=SoftmaxRegression(CLASSES),
            say=lines.append,
            progress=False,
        )

    first = run(0, 0.1, "constant")
    for seed, rate, schedule in ((1, 0.1, "constant"), (0, 0.01, "cosine"), (2, 0.5, "step")):
        other = run(seed, rate, schedule)
        assert any("programs that were compiled before: 2" in line for line in lines)
        assert other.history[-1]["train_loss"] != first.history[-1]["train_loss"]


def test_gradients_are_clipped_before_anything_else():
    config = from_dict(ExperimentConfig, {"clip_norm": 0.7, "weight_decay": DECAY})
    reference = optax.chain(
        optax.clip_by_global_norm(0.7),
        optax.add_decayed_weights(DECAY),
        optax.sgd(RATE, momentum=config.momentum),
    )
    chex.assert_trees_all_close(descend(config), descend_by_optax(reference), rtol=1e-5)


@pytest.fixture
def own(monkeypatch):
    """A function that registers an entry, for one test."""

    def register(registry, name, made):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        registry.register(name, lambda settings, context: made)

    return register


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (optax.sgd(1.0), "must return the direction, without rate and sign"),
        (optax.lion(1e-3), "for a gradient of ones it is negative"),
        ("lion", "must return a GradientTransformation, got 'lion'"),
    ],
)
def test_an_optimizer_of_ones_own_must_be_a_direction(own, made, message):
    own(OPTIMIZERS, "mine", made)
    own(SERVER_OPTIMIZERS, "mine", made)
    with pytest.raises(SemanticFLError, match=message):
        client_optimizer(ExperimentConfig(optimizer=OptimizerConfig("mine")))
    with pytest.raises(SemanticFLError, match=message):
        algorithm_of(ExperimentConfig(algorithm=AlgorithmConfig(server_optimizer="mine")))


def for_one_network(updates, state, params=None):
    return {"head": updates["head"]}, state


@pytest.mark.parametrize(
    "made",
    [
        optax.scale_by_lion(),
        optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1)),
        optax.GradientTransformation(lambda params: (), for_one_network),
    ],
)
def test_directions_of_ones_own_are_taken(own, made):
    own(OPTIMIZERS, "mine", made)
    client_optimizer(ExperimentConfig(optimizer=OptimizerConfig("mine")))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda done: 1 - done, r"the schedule mine must return .* not negative, .* got -1 for 2"),
        (lambda done: float("nan"), "got nan for 0"),
        (lambda done: np.ones(2), "got array.* for 0"),
        (0.5, "must return a Callable, got 0.5"),
    ],
)
@pytest.mark.parametrize("field", ["schedule", "server_schedule"])
def test_a_schedule_of_ones_own_must_be_a_factor_in_every_round(own, field, made, message):
    own(SCHEDULES, "mine", made)
    with pytest.raises(SemanticFLError, match=message):
        make_rates(ExperimentConfig(rounds=3, optimizer=OptimizerConfig(**{field: "mine"})))
