"""The guidance term: what it sends, what it trains, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import guidance_term
from semanticfl_jax.algorithms.base import TermInputs
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, GuidanceConfig
from semanticfl_jax.models import Outputs
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.semantics.losses import cross_modal_contrast, distillation
from tests.federation import algorithm_of

DIM, TEXT = 6, 4


@pytest.fixture(scope="module")
def anchors():
    rng = np.random.default_rng(0)
    visual, text = rng.normal(size=(3, DIM)), rng.normal(size=(3, TEXT))
    return Anchors(visual.astype(np.float32), text.astype(np.float32), ("a", "b", "c"), {}, {}, 0)


def inputs(term, seed=1):
    rng = np.random.default_rng(seed)
    outputs = Outputs(jnp.zeros((5, 3)), jnp.asarray(rng.normal(size=(5, DIM)), jnp.float32))
    labels, mask = jnp.array([0, 1, 2, 1, 0]), jnp.array([True, True, True, True, False])
    return TermInputs(term.init(jax.random.key(0)), term.shared, outputs, labels, mask)


def test_loss_is_the_weighted_sum_of_both_terms(anchors):
    config = GuidanceConfig(
        lambda_kd=2.0, lambda_con=0.3, kd="cosine", temperature_con=0.1, visual_head="none"
    )
    term = guidance_term(anchors, config, DIM)
    given = inputs(term)
    features, labels, mask = given.outputs.features, given.labels, given.mask
    projected = features @ given.params["text_head"]
    kd = distillation(features, term.shared["visual"][labels], mask, "cosine", 1.0)
    con = cross_modal_contrast(projected, term.shared["text"], labels, mask, 0.1)
    np.testing.assert_allclose(term.loss(given), 2.0 * kd + 0.3 * con, rtol=1e-6)


def test_a_linear_head_lets_features_without_negative_entries_reach_the_anchors(anchors):
    visual = anchors.visual / np.linalg.norm(anchors.visual, axis=1, keepdims=True)
    anchors = dataclasses.replace(anchors, visual=visual)
    width = 3 * DIM  # any; the head maps it to the anchors'
    config = GuidanceConfig(kd="cosine", lambda_con=0.0)
    term = guidance_term(anchors, config, width)
    paper = guidance_term(anchors, dataclasses.replace(config, visual_head="none"), DIM)
    assert term.init(jax.random.key(0))["visual_head"].shape == (width, DIM)
    features = jnp.abs(jnp.asarray(np.random.default_rng(4).normal(size=(5, width)), jnp.float32))
    given = inputs(paper)._replace(outputs=Outputs(jnp.zeros((5, 3)), features))
    rows = anchors.visual[np.asarray(given.labels)]
    head = np.linalg.pinv(np.asarray(features)) @ rows
    reached = term.loss(given._replace(params={"visual_head": jnp.asarray(head)}))
    np.testing.assert_allclose(reached, 0.0, atol=1e-5)
    # Without the head the best that such features can do is the positive part of the anchor.
    best = np.maximum(rows, 0)
    best = given._replace(outputs=Outputs(jnp.zeros((5, 3)), jnp.asarray(best)))
    lengths = np.linalg.norm(np.maximum(rows, 0), axis=1)
    np.testing.assert_allclose(paper.loss(best), np.mean(1 - lengths[:4]), rtol=1e-5)
    assert paper.loss(best) > 0.1


def test_a_client_drops_the_term_whose_anchors_it_lacks(anchors):
    holders = {"text": np.array([True, False]), "visual": np.array([True, True])}
    term = guidance_term(anchors, GuidanceConfig(lambda_kd=2.0), DIM, holders)
    kd_only = guidance_term(anchors, GuidanceConfig(lambda_kd=2.0, lambda_con=0.0), DIM, holders)
    assert set(term.holders) == {"text", "visual"}
    assert set(kd_only.holders) == {"visual"}
    given = inputs(term)
    everything, without_text, nothing = (
        term.loss(given._replace(holds={"text": jnp.array(text), "visual": jnp.array(visual)}))
        for text, visual in ((True, True), (False, True), (False, False))
    )
    assert everything == term.loss(given)
    np.testing.assert_allclose(without_text, kd_only.loss(given), rtol=1e-6)
    assert nothing == 0
    assert everything > without_text > 0


def test_features_of_single_images_are_the_targets_where_there_are_any(anchors):
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(9, DIM)).astype(np.float16)
    of_images = dataclasses.replace(anchors, samples=samples)
    term = guidance_term(
        of_images, GuidanceConfig(kd="l2", lambda_con=0.0, visual_head="none"), DIM
    )
    assert term.shared == {}
    np.testing.assert_array_equal(term.per_sample["visual"], samples)
    rows = samples[[3, 1, 4, 1, 5]]
    given = inputs(term)._replace(rows={"visual": jnp.asarray(rows)})
    features = np.asarray(given.outputs.features)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.sum((directions - rows.astype(np.float32)) ** 2, axis=1)
    np.testing.assert_allclose(term.loss(given), distances[:4].mean(), rtol=1e-5)


def test_a_weight_of_zero_sends_and_trains_nothing(anchors):
    without_con = guidance_term(anchors, GuidanceConfig(lambda_con=0.0), DIM)
    assert set(without_con.shared) == {"visual"}
    assert set(without_con.init(jax.random.key(0))) == {"visual_head"}
    paper = guidance_term(anchors, GuidanceConfig(lambda_con=0.0, visual_head="none"), DIM)
    assert paper.init(jax.random.key(0)) == {}
    without_kd = guidance_term(anchors, GuidanceConfig(lambda_kd=0.0), DIM)
    assert set(without_kd.shared) == {"text"}
    assert set(without_kd.init(jax.random.key(0))) == {"text_head"}
    assert without_kd.init(jax.random.key(0))["text_head"].shape == (DIM, TEXT)
    assert guidance_term(anchors, GuidanceConfig(lambda_kd=0.0, lambda_con=0.0), DIM) is None


def test_anchors_of_another_width_are_refused(anchors):
    with pytest.raises(ValueError, match=r"guidance\.dim: the visual anchors have 6 dimensions"):
        guidance_term(anchors, GuidanceConfig(visual_head="none"), 16)


def test_semanticfl_aggregates_as_fedavg():
    sizes, counts = jnp.array([10, 30, 0]), jnp.zeros((3, 2), jnp.int32)
    for name in ("fedavg", "semanticfl"):
        algorithm = algorithm_of(ExperimentConfig(algorithm=AlgorithmConfig(name=name)))
        assert algorithm.weights is by_size
        np.testing.assert_allclose(algorithm.weights(sizes, counts), [0.25, 0.75, 0.0])


def test_the_distillation_has_its_temperature(anchors):
    config = GuidanceConfig(kd="kl", temperature_kd=0.3, lambda_con=0.0, visual_head="none")
    term = guidance_term(anchors, config, DIM)
    given = inputs(term)
    targets = term.shared["visual"][given.labels]
    expected = distillation(given.outputs.features, targets, given.mask, "kl", 0.3)
    np.testing.assert_allclose(term.loss(given), expected, rtol=1e-6)
