"""Local objectives and personal models, each by itself: its loss, its weight, what it needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import Beginning, Model, TermInputs, Trained
from semanticfl_jax.algorithms.fedcda import FedCDAState
from semanticfl_jax.algorithms.fedetf import simplex
from semanticfl_jax.algorithms.fedrcl import contrast_of_level, relaxed_contrast
from semanticfl_jax.algorithms.qffl import Seen
from semanticfl_jax.config import FedRCLConfig
from semanticfl_jax.models import Outputs
from tests.algorithms.two_layers import configuration, weights_of
from tests.federation import CLASSES, DeepLinear, algorithm_of


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


def test_the_simplex_has_equal_angles():
    corners = simplex(6, CLASSES, np.random.default_rng(0))
    expected = np.full((CLASSES, CLASSES), -1 / (CLASSES - 1))
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(corners.T @ corners, expected, atol=1e-6)


@pytest.mark.parametrize(("share", "steps", "taken"), [(0.3, 50, 15), (0.3, 51, 16), (0.01, 5, 1)])
def test_fedala_learns_from_its_share_of_the_batches(share, steps, taken):
    case = {"name": "fedala", "fedala": {"rate": 1.0, "share": share}}
    rule = algorithm_of(configuration(case), model=DeepLinear(CLASSES)).client
    received = Model({"model": {"head": {"kernel": jnp.ones((5, CLASSES))}}}, {})
    state = rule.init(jax.tree.map(jnp.zeros_like, received))
    # Each batch takes a 64th of the common model away.
    found = (jnp.zeros(()), {}), jax.tree.map(lambda x: x / 64, received.params)
    numbers = (jnp.int32(steps), jnp.int32(0), jnp.int32(steps))
    begun, weights = rule.begin(
        Beginning(
            lambda model, step: found, state, received, (), *numbers, lambda step: jnp.float32(1)
        )
    )
    for model in (begun, weights):
        np.testing.assert_array_equal(weights_of(model.params)["head"], 1 - taken / 64)


@pytest.mark.parametrize(("warmup", "rounds", "taken"), [(0.29, 100, 29), (0.3, 99, 29), (0, 9, 0)])
def test_fedcda_begins_with_its_share_of_rounds_as_fedavg(warmup, rounds, taken):
    case = {"name": "fedcda", "fedcda": {"warmup": warmup}}
    server = algorithm_of(configuration(case, rounds=rounds)).server
    # After each number of rounds: what was averaged, here 0, or half of what two clients add up to.
    total, chosen = Model({}, jnp.ones(())), jnp.array([0, -1, 2, -1])
    found = [
        float(server.batch_stats(FedCDAState(total, chosen, jnp.int32(done)), jnp.zeros(())))
        for done in range(1, rounds + 1)
    ]
    assert found == [0.0] * taken + [0.5] * (rounds - taken)


@pytest.mark.parametrize(("levels", "used"), [("all", (0, 1)), ((1,), (1,))])
def test_fedrcl_averages_over_the_levels_that_are_chosen(levels, used):
    rng = np.random.default_rng(0)
    given = [jnp.float32(rng.normal(size=(6, width))) for width in (3, 5)]
    labels, mask = jnp.array([0, 1, 0, 1, 1, 2]), jnp.arange(6) < 5
    settings = {"temperature": 0.3, "threshold": -1.0, "weight": 2.0, "penalty_weight": 0.5}
    config = FedRCLConfig(levels=levels, **settings)
    inputs = TermInputs({}, (), Outputs(None, None, tuple(given)), labels, mask)
    each = [contrast_of_level(given[level], labels, mask, config) for level in used]
    expected = np.mean([2.0 * contrast + 0.5 * penalty for contrast, penalty in each])
    np.testing.assert_allclose(relaxed_contrast(config).loss(inputs), expected, rtol=1e-5)
