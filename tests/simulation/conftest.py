"""The small ragged federation of `tests.federation`, with and without guidance."""

import numpy as np
import pytest

from semanticfl_jax.algorithms import guidance_term
from semanticfl_jax.config import GuidanceConfig
from semanticfl_jax.semantics.anchors import Anchors
from tests.federation import CLASSES, FEDAVG, SIZES, TinyNet, make_federation


@pytest.fixture(scope="session")
def federation():
    return make_federation(TinyNet(CLASSES), SIZES)


@pytest.fixture(scope="session")
def anchors():
    """Made up, for the federation's classes and network."""
    rng = np.random.default_rng(1)
    visual, text = rng.normal(size=(CLASSES, 6)), rng.normal(size=(CLASSES, 6))
    visual, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (visual, text))
    return Anchors(visual.astype(np.float32), text.astype(np.float32), tuple("abcd"), {}, {}, 0)


@pytest.fixture(scope="session")
def guided(federation, anchors):
    """SemanticFL on the federation."""
    term = guidance_term(anchors, GuidanceConfig(lambda_con=0.5), federation.model.feature_dim)
    return FEDAVG.with_term(term)
