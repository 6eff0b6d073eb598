"""The count of a network's arithmetic."""

import dataclasses

import pytest

from semanticfl_jax.config import ExperimentConfig, ModelConfig, RuntimeConfig
from semanticfl_jax.models.flops import training_flops


def test_training_flops_are_those_of_a_count_by_hand():
    """Two operations a weight and output place; thrice that with both gradients."""
    convolutions = 2 * 30**2 * 27 * 32, 2 * 28**2 * 288 * 64
    dense = 2 * (12544 * 128 + 128 * 10)
    # Nobody asks for the gradient by the image.
    by_hand = 3 * (sum(convolutions) + dense) - convolutions[0]
    assert sum(convolutions) + dense == pytest.approx(33.7e6, rel=1e-3)
    config = ExperimentConfig(model=ModelConfig(name="cnn"), batch_size=10)
    counted = training_flops(config, 10, (32, 32, 3))
    # The rest is element by element: ReLU, pooling, dropout, softmax.
    assert by_hand < counted < 1.02 * by_hand
    patches = dataclasses.replace(config, runtime=RuntimeConfig(conv="patches"))
    assert training_flops(patches, 10, (32, 32, 3)) == counted
