"""Figures of a test set, against NumPy and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, log_loss

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.data.federated import pad_batches
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.evaluation import make_evaluation
from semanticfl_jax.tasks.classification import CALIBRATION_BINS, count, figures
from tests.federation import MEAN, STD, SoftmaxRegression

K = 4


def reference_ece(probabilities, labels):
    """The mean gap between confidence and accuracy, bin by bin, in a plain loop."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    total = 0.0
    for b in range(CALIBRATION_BINS):
        inside = (confidence > b / CALIBRATION_BINS) & (confidence <= (b + 1) / CALIBRATION_BINS)
        if inside.any():
            gap = abs((predicted == labels)[inside].mean() - confidence[inside].mean())
            total += inside.mean() * gap
    return total


@pytest.mark.parametrize("devices", [1, 2])
def test_figures_equal_sklearns_whatever_the_padding(devices):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, K - 1, 37).astype(np.int32)  # the last class is never tested
    kernel = rng.normal(size=(12, K)).astype(np.float32)
    params = {"model": {"Dense_0": {"kernel": kernel, "bias": np.zeros(K, np.float32)}}}
    evaluate = make_evaluation(SoftmaxRegression(K), make_mesh(devices), MEAN, STD)
    result = evaluate(Model(params, {}), pad_batches(images, labels, 8, devices))

    pixels = (images / 255 - np.array(MEAN)) / np.array(STD)
    squares = 4 * pixels.reshape(37, 2, 4, 2, 4, 3).mean(axis=(2, 4)).reshape(37, 12)
    logits = squares @ kernel.astype(float)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    matrix = confusion_matrix(labels, probabilities.argmax(1), labels=range(K))
    np.testing.assert_allclose(result["test_accuracy"], np.trace(matrix) / 37, rtol=1e-6)
    np.testing.assert_allclose(
        result["test_loss"], log_loss(labels, probabilities, labels=range(K)), rtol=1e-4
    )
    by_class = np.diag(matrix)[:-1] / matrix.sum(1)[:-1]
    np.testing.assert_allclose(result["class_accuracy"][:-1], by_class, rtol=1e-6)
    assert np.isnan(result["class_accuracy"][-1])
    np.testing.assert_allclose(result["ece"], reference_ece(probabilities, labels), atol=1e-5)


def test_calibration_error_of_known_cases():
    # Certain and right: 0. Certain and wrong: 1. Two classes at 1/2, right half the time: 0.
    certain = jnp.array([[100.0, 0.0], [0.0, 100.0]])
    everything = jnp.ones(2, bool)
    assert figures(count(certain, jnp.array([0, 1]), everything))["ece"] == 0
    assert figures(count(certain, jnp.array([1, 0]), everything))["ece"] == 1
    assert figures(count(jnp.zeros((2, 2)), jnp.array([0, 1]), everything))["ece"] == 0
