"""Rounds in which a part of the network is trained, against a network that has no other."""

import dataclasses

import jax
import numpy as np
import pytest

from semanticfl_jax.algorithms.fixed import fixed_part, whole
from semanticfl_jax.config import AlgorithmConfig, OptimizerConfig
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.initial import init_model
from semanticfl_jax.federated.traffic import make_traffic
from tests.federation import CONFIG, SIZES, algorithm_of, head_only, make_federation

ADAM = dataclasses.replace(CONFIG, optimizer=OptimizerConfig("adam"), clip_norm=0.5)


def only_head(path):
    return "/base/" not in path


@pytest.fixture(scope="module")
def drawn(two_layers):
    return jax.device_get(
        init_model(two_layers.model, algorithm_of(CONFIG), (8, 8, 3), two_layers.key)
    )


@pytest.fixture(scope="module")
def constant(drawn):
    """The federation with a network whose first layer is constants, as it is drawn."""
    return make_federation(head_only(drawn.params["model"]["base"]), SIZES)


def algorithm_on(federation, config, fixed=None):
    return dataclasses.replace(algorithm_of(config, model=federation.model), fixed=fixed)


def after(federation, algorithm, config, rounds=2, **options):
    run, (state, *rest) = federation.round(algorithm, config=config, **options)
    for _ in range(rounds):
        state, metrics = run(state, *rest)
    return jax.device_get((state, metrics))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("fedavg", ADAM),
        ("scaffold", CONFIG),
        ("moon", CONFIG),
        ("pfedme", CONFIG),
        ("fedper", CONFIG),
    ],
)
def test_what_is_trained_is_as_if_the_rest_were_constants(
    name, config, two_layers, constant, drawn
):
    config = dataclasses.replace(config, algorithm=AlgorithmConfig(name))
    fixed = fixed_part(drawn, only_head)
    part = after(two_layers, algorithm_on(two_layers, config, fixed), config, chunk=2)
    reference = after(constant, algorithm_on(constant, config), config, chunk=2)
    for one, other in zip(part, reference, strict=True):
        leaves = jax.tree.leaves(one), jax.tree.leaves(other)
        for a, b in zip(*leaves, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_clients_keep_and_send_only_what_is_trained(two_layers, constant, drawn):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig("scaffold"))
    fixed = fixed_part(drawn, only_head)
    sizes = {}
    for federation, of in ((two_layers, fixed), (constant, None)):
        algorithm = algorithm_on(federation, config, of)
        state, data, *_ = federation.start(algorithm, make_mesh(1))
        sizes[of is None] = make_traffic(algorithm, state, data), jax.tree.map(np.shape, state)
    (part, kept), (reference, kept_there) = sizes[False], sizes[True]
    assert (part.up, part.down) == (reference.up, reference.down)
    assert jax.tree.leaves(kept) == jax.tree.leaves(kept_there)
    np.testing.assert_array_equal(part.down_once, 4 * (12 * 5 + 5))  # the base, at first contact
    np.testing.assert_array_equal(reference.down_once, 0)


@pytest.mark.parametrize("name", ["apfl", "fedala", "fedbn", "fedcda", "fedetf", "ifca", "local"])
def test_rules_of_every_kind_take_a_part(name, two_layers, drawn):
    config = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name))
    algorithm = algorithm_on(two_layers, config, fixed_part(drawn, only_head))
    run, start = two_layers.round(algorithm, config=config)
    state, _ = jax.eval_shape(lambda *arguments: run(*arguments), *start)
    assert jax.tree.structure(state.params) == jax.tree.structure(start[0].params)


def test_a_part_and_the_rest_are_the_whole(drawn):
    fixed = fixed_part(drawn, only_head)
    assert jax.tree.leaves(fixed) and not jax.tree.leaves(fixed["head"])
    changed = jax.tree.map(lambda x: x + 1, drawn)
    network, before = whole(changed, fixed).params["model"], drawn.params["model"]
    np.testing.assert_array_equal(network["base"]["kernel"], before["base"]["kernel"])
    np.testing.assert_array_equal(network["head"]["kernel"], before["head"]["kernel"] + 1)
