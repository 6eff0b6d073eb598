"""Bytes that each algorithm sends, in both directions."""

import numpy as np
import pytest

from semanticfl_jax.algorithms import make_algorithm
from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.mesh import make_mesh
from semanticfl_jax.simulation.round import RoundMetrics
from semanticfl_jax.simulation.traffic import Traffic, make_traffic
from tests.federation import CLASSES, SIZES, TinyNet, make_federation

# Kernel and bias of the convolution's normalisation, classifier; and running statistics.
PARAMETERS = 4 * (3 * 3 * 3 * 6 + 6 + 6 + 6 * CLASSES + CLASSES)
STATISTICS = 4 * (6 + 6)
MODEL = PARAMETERS + STATISTICS
ANCHORS = 4 * CLASSES * 6


def traffic(values, anchors=None):
    federation = make_federation(TinyNet(CLASSES), SIZES)
    config = from_dict(ExperimentConfig, {"num_clients": len(SIZES), **values})
    algorithm = make_algorithm(config, anchors, 6)
    state, data, _, _ = federation.start(algorithm, make_mesh(1))
    return make_traffic(algorithm, state, data)


@pytest.mark.parametrize(
    ("name", "up", "down", "once"),
    [
        ("fedavg", 0, 0, 0),
        ("fedprox", 0, 0, 0),
        ("scaffold", PARAMETERS, PARAMETERS, 0),
        ("moon", 0, 0, 0),
        ("fedrcl", 0, 0, 0),
        ("feddisco", 0, 0, 4 * CLASSES),
        ("fedcda", 4, 0, 0),
        ("fednova", 4, 0, 0),
        ("feddyn", 0, 0, 0),
        ("fedyogi", 0, 0, 0),
    ],
)
def test_what_is_sent_besides_the_model(name, up, down, once):
    assert traffic({"algorithm": {"name": name}}) == Traffic(MODEL + up, MODEL + down, once, 0, 0)


def test_anchors_are_sent_once():
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(CLASSES, 6)).astype(np.float32)
    samples = np.zeros((sum(SIZES) + 4, 6), np.float16)
    anchors = Anchors(visual, visual, tuple("abcd"), {}, {}, 0)
    values = {"algorithm": {"name": "feddifrc"}}
    assert traffic(values, anchors)[2:] == (0, ANCHORS, 0)
    of_images = Anchors(visual, visual, tuple("abcd"), {}, {}, 0, samples)
    assert traffic(values, of_images)[2:] == (0, ANCHORS, 12)


def test_a_round_counts_its_participants_and_first_contacts():
    metrics = RoundMetrics(0, 0, 0, 2, 50, cohort=np.array([3, -1, 1, 5]))
    expected = {"bytes_up": 3 * 10 + 2 * 5, "bytes_down": 3 * 20 + 2 * 7 + 50 * 2}
    assert Traffic(10, 20, 5, 7, 2).of_round(metrics) == expected
