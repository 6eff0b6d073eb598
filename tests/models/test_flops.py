"""The count of a network's arithmetic."""

import dataclasses

import jax
import pytest

from semanticfl_jax.config import ExperimentConfig, ModelConfig, RuntimeConfig
from semanticfl_jax.models import make_model
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
    # Of the last layer alone: all forward, and once more its products with the gradient.
    network = make_model(config, 10, (32, 32, 3))
    fixed = network.variables((32, 32, 3))["params"]
    (last,) = [name for name, layer in fixed.items() if layer["kernel"].shape == (128, 10)]
    fixed[last] = jax.tree.map(lambda x: None, fixed[last])
    of_last = sum(convolutions) + dense + 2 * 128 * 10
    counted_of_last = training_flops(config, 10, (32, 32, 3), fixed=fixed)
    assert 0 < counted_of_last - of_last < counted - by_hand
    patches = dataclasses.replace(config, runtime=RuntimeConfig(conv="patches"))
    assert training_flops(patches, 10, (32, 32, 3)) == counted
