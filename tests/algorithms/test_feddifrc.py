"""FedDifRC's losses against their equations, with features of classes and of single images."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import TermInputs
from semanticfl_jax.algorithms.feddifrc import feddifrc_term
from semanticfl_jax.config import FedDifRCConfig
from semanticfl_jax.models import Outputs
from semanticfl_jax.semantics.anchors import Anchors

DIM, CLASSES, SAMPLES = 6, 3, 9
LABELS, MASK = np.array([0, 1, 2, 1, 0]), np.array([True, True, True, True, False])
ROWS = np.array([3, 1, 4, 1, 5])


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def anchors():
    visual = unit(np.random.default_rng(0).normal(size=(CLASSES, DIM)))
    return Anchors(visual.astype(np.float32), visual, ("a", "b", "c"), {}, {}, 0)


@pytest.mark.parametrize("oracle", [False, True])
def test_loss_follows_the_equations(anchors, oracle):
    rng = np.random.default_rng(1)
    features = rng.normal(size=(5, DIM))
    samples = unit(rng.normal(size=(SAMPLES, DIM))).astype(np.float16)
    config = FedDifRCConfig(lambda_tdcl=2.0, lambda_ndcr=0.3, temperature=0.1)
    if oracle:
        anchors = dataclasses.replace(anchors, samples=samples)
    term = feddifrc_term(anchors, config, DIM)
    expected = []
    for z, y, row in zip(unit(features)[:4], LABELS, ROWS, strict=False):
        own = samples[row].astype(float) if oracle else anchors.visual[y]
        wrong = sum(np.exp(z @ anchors.visual[c] / 0.1) for c in range(CLASSES) if c != y)
        tdcl = np.log(1 + wrong / np.exp(z @ own / 0.1))
        expected.append(2.0 * tdcl + 0.3 * np.sum((z - own) ** 2))
    inputs = TermInputs(
        params={},
        shared=term.shared,
        outputs=Outputs(jnp.zeros((5, CLASSES)), jnp.asarray(features, jnp.float32)),
        labels=jnp.asarray(LABELS),
        mask=jnp.asarray(MASK),
        rows={"images": jnp.asarray(samples[ROWS])} if oracle else {},
    )
    assert set(term.per_sample) == ({"images"} if oracle else set())
    np.testing.assert_allclose(term.loss(inputs), np.mean(expected), rtol=1e-5)
    # Who lacks visual anchors drops the term, and is sent nothing.
    some = feddifrc_term(anchors, config, DIM, np.array([True, False]))
    assert set(some.holders) == {*some.shared, *some.per_sample} and "classes" in some.holders
    for client, factor in enumerate((1, 0)):
        holds = {name: who[client] for name, who in some.holders.items()}
        found = some.loss(inputs._replace(holds=holds))
        np.testing.assert_allclose(found, factor * np.mean(expected), rtol=1e-5)


def test_without_weights_there_is_no_term_and_wrong_anchors_are_refused(anchors):
    assert feddifrc_term(anchors, FedDifRCConfig(lambda_tdcl=0, lambda_ndcr=0), DIM) is None
    with pytest.raises(ValueError, match=r"guidance\.dim: the visual anchors have 6 dimensions"):
        feddifrc_term(anchors, FedDifRCConfig(), 16)
