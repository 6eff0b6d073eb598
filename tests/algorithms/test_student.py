"""The student's term: its loss, what is sent, what clients compute, and its controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import starts_from, student_term
from semanticfl_jax.algorithms.base import TermInputs
from semanticfl_jax.config import ConfigError, StudentConfig
from semanticfl_jax.models import Outputs
from tests.students import DIM, MEAN, STD, TWO_LAYERS, make_student

WIDTH, COUNT = 6, 5
MASK = jnp.array([True, True, True, True, False])
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def student():
    return make_student()


def term_of(student, starts=False, **settings):
    config = StudentConfig(enabled=True, **settings)
    return student_term(student, config, WIDTH, seed=0, starts=starts)


def inputs(term, rows=None, images=None):
    features = np.random.default_rng(1).normal(size=(COUNT, WIDTH))
    outputs = Outputs(jnp.zeros((COUNT, 2)), jnp.asarray(features, jnp.float32))
    return TermInputs(
        term.init(jax.random.key(0)),
        term.shared,
        outputs,
        jnp.zeros(COUNT, jnp.int32),
        MASK,
        rows=rows or {},
        images=images,
    )


def test_the_loss_is_the_weighted_mean_squared_distance(student):
    term = term_of(student, weight=3.0, init=False)
    rows = {name: x for name, x in term.contact.rows(term.shared, IMAGES).items()}
    assert rows["targets"].dtype == jnp.float16
    given = inputs(term, rows)
    head = jax.tree.map(np.asarray, given.params)
    seen = np.asarray(given.outputs.features) @ head["kernel"] + head["bias"]
    targets = np.asarray(rows["targets"], np.float32)
    expected = 3 * np.mean(np.square(seen - targets)[:4])
    np.testing.assert_allclose(term.loss(given), expected, rtol=1e-5)
    np.testing.assert_allclose(targets, student.outputs(IMAGES), rtol=2e-3, atol=1e-3)
    without = given._replace(holds={"student": jnp.array(False)})
    assert term.loss(without) == 0


def test_targets_of_a_step_are_those_of_its_images(student):
    once, each = term_of(student, init=False), term_of(student, init=False, targets="each_step")
    assert each.contact is None
    normalized = jnp.asarray((IMAGES / 255 - np.array(MEAN)) / np.array(STD), jnp.float32)
    rows = once.contact.rows(once.shared, IMAGES)
    np.testing.assert_allclose(
        each.loss(inputs(each, images=normalized)), once.loss(inputs(once, rows)), rtol=2e-3
    )
    gradient = jax.grad(lambda images: each.loss(inputs(each, images=images)))(normalized)
    assert not np.any(gradient)  # nobody learns to move the targets


def test_a_network_that_starts_from_the_student_begins_on_its_targets(student):
    term = term_of(student, starts=True)
    head = student.variables["params"]["Dense_0"]
    np.testing.assert_array_equal(term.init(jax.random.key(0))["kernel"], head["kernel"])
    drawn = term_of(student).init(jax.random.key(0))
    assert drawn["kernel"].shape == (WIDTH, DIM)


@pytest.mark.parametrize(
    ("settings", "same", "other"),
    [
        ({}, True, False),
        ({"init": False}, False, False),
        ({"init": True}, True, True),  # and then refused, naming what differs
        ({"control": "target_only"}, False, False),
        ({"control": "start_only"}, True, True),
        ({"weight": 0.0}, True, True),
    ],
)
def test_who_starts_from_the_student(student, settings, same, other):
    config = StudentConfig(enabled=True, **settings)
    network = make_student(dim=7).variables  # the same but for the outputs
    assert starts_from(student, config, network) == same
    another = make_student(TWO_LAYERS).variables
    assert starts_from(student, config, another) == other
    assert not starts_from(student, StudentConfig(enabled=True), None)


@pytest.mark.parametrize("settings", [{"weight": 0.0}, {"control": "start_only"}])
def test_without_targets_there_is_no_term(student, settings):
    assert term_of(student, **settings) is None
    assert StudentConfig(enabled=True, **settings).must_start


def test_labels_only_give_a_start(student):
    config = StudentConfig(enabled=True, control="labels", images="public")
    assert not config.sets_targets
    assert config.teacher == "labels"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"control": "start_only", "init": False}, "init"),
        ({"control": "target_only", "weight": 0.0}, "weight"),
        ({"images": "dataset:nothing"}, "images"),
        ({"images": "directory"}, "data_dir"),
        ({"dim": 0}, "dim"),
        ({"control": "random_unet"}, "images"),
        ({"dim": 64}, "images"),
        ({"steps": 10}, "images"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings, field):
    with pytest.raises(ConfigError, match=f"^{field} must be"):
        StudentConfig(enabled=True, **settings)


def test_permuted_targets_are_those_of_other_images(student):
    order = term_of(student, control="permuted").contact.order(50)
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert (order != np.arange(50)).mean() > 0.8
    assert term_of(student).contact.order is None
    with pytest.raises(ConfigError, match="targets"):
        StudentConfig(enabled=True, control="permuted", targets="each_step")


def test_only_who_holds_the_student_is_sent_it(student):
    who = np.array([True, False])
    config = StudentConfig(enabled=True)
    holders = {"student": who, "text": ~who}
    term = student_term(student, config, WIDTH, seed=0, holders=holders)
    assert list(term.holders) == ["student"]
    assert list(term.shared) == ["student"]
    assert term.per_sample == ()
