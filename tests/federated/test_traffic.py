"""Bytes that each algorithm sends, in both directions."""

import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.modality import draw_modalities
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.traffic import Traffic, make_traffic
from semanticfl_jax.semantics.anchors import Anchors
from tests.federation import CLASSES, SIZES, TinyNet, algorithm_of, make_federation

# Kernel and bias of the convolution's normalisation, classifier; and running statistics.
PARAMETERS = 4 * (3 * 3 * 3 * 6 + 6 + 6 + 6 * CLASSES + CLASSES)
STATISTICS = 4 * (6 + 6)
MODEL = PARAMETERS + STATISTICS
ANCHORS = 4 * CLASSES * 6


def traffic(values, anchors=None):
    federation = make_federation(TinyNet(CLASSES), SIZES)
    config = from_dict(ExperimentConfig, {"num_clients": len(SIZES), **values})
    holders = draw_modalities(config.modality, len(SIZES), config.seed)
    algorithm = algorithm_of(config, anchors, 6, holders)
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
    sent = traffic({"algorithm": {"name": name}})
    assert sent[:3] == (MODEL + up, MODEL + down, once)
    assert not sent.down_once.any()


def test_anchors_are_sent_once():
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(CLASSES, 6)).astype(np.float32)
    samples = np.zeros((sum(SIZES) + 4, 6), np.float16)
    anchors = Anchors(visual, visual, tuple("abcd"), {}, {}, 0)
    values = {"algorithm": {"name": "feddifrc"}}
    np.testing.assert_array_equal(traffic(values, anchors).down_once, ANCHORS)
    of_images = Anchors(visual, visual, tuple("abcd"), {}, {}, 0, samples)
    expected = ANCHORS + 12 * np.array(SIZES)
    np.testing.assert_array_equal(traffic(values, of_images).down_once, expected)


def test_clients_without_a_modality_are_not_sent_it():
    rng = np.random.default_rng(0)
    visual = rng.normal(size=(CLASSES, 6)).astype(np.float32)
    text = rng.normal(size=(CLASSES, 9)).astype(np.float32)
    anchors = Anchors(visual, text, tuple("abcd"), {}, {}, 0)
    values = {
        "algorithm": {"name": "semanticfl"},
        "modality": {"without_text": 2 / 7, "without_visual": 1 / 7, "without_both": 1 / 7},
    }
    sent = sorted(traffic(values, anchors).down_once // (4 * CLASSES))
    assert sent == [0, 6, 6, 9, 15, 15, 15]


def test_a_round_counts_its_participants_and_first_contacts():
    metrics = RoundMetrics(
        train_loss=0,
        images=0,
        padding_share=0,
        cohort=np.array([3, -1, 1, 5]),
        reported=np.array([True, False, False, True]),
        new=np.array([False, False, True, True]),
        diverged=np.zeros(4, bool),
        finite=True,
    )
    traffic = Traffic(10, 20, 5, down_once=np.array([0, 7, 0, 100, 0, 9]))
    expected = {"bytes_up": 2 * 10 + 2 * 5, "bytes_down": 3 * 20 + 7 + 9}
    assert traffic.of_round(metrics) == expected
