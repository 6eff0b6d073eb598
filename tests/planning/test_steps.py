"""Single steps, beside the count of a training step that has nothing else in it."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.models.flops import training_flops
from semanticfl_jax.planning.hlo import estimated_cycles
from semanticfl_jax.planning.shapes import make_shapes
from semanticfl_jax.planning.steps import Step, compile_step, table
from semanticfl_jax.planning.topology import make_topology
from tests.planning.test_plan import CONFIG, IMAGES


@pytest.mark.parametrize("clients", [1, 2])
def test_a_step_takes_the_arithmetic_of_its_network(clients):
    config = dataclasses.replace(CONFIG, batch_size=16)
    dataset = make_shapes(config, IMAGES).federation.dataset
    step = compile_step(config, make_topology("cpu:2"), IMAGES, 16, "native", clients)
    assert step.failed is None and step.cycles is None
    alone = 16 * training_flops(config, dataset.num_classes, dataset.image_shape)
    # The optimiser and the batch are in it, too: a few operations a parameter and pixel.
    np.testing.assert_allclose(step.flops / clients, alone, rtol=0.1)
    assert step.bytes > 0 and step.temporaries > 0


def test_cycles_are_added_up():
    text = """
  %a = f32[2] fusion(%x), backend_config={"estimated_cycles":"120","is_mask":false}
  %b = f32[2] fusion(%a), backend_config={"estimated_cycles":"3","is_mask":false}
"""
    assert estimated_cycles(text) == 123
    assert estimated_cycles("  %a = f32[2] fusion(%x)") is None


def test_a_table_tells_of_one_client():
    steps = [
        Step("native", 4, 8e9, 4e9, 5_000_000, 12_000_000),
        Step("native", 1, 2e9, 1e9, 1_000_000),
        Step("patches", 64, failed="out of memory"),
    ]
    assert table(steps)[2:] == [
        "| native | 4 | 2.00 | 1,000 | 3.00 | 5 |",
        "| native | 1 | 2.00 | 1,000 |  | 1 |",
        "| patches | 64 | out of memory | | | |",
    ]
