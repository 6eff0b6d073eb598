"""Plans for slices of several TPU hosts, of which XLA compiles only some parts."""

import dataclasses
import importlib.util

import pytest

from semanticfl_jax.planning.plan import make_plan
from semanticfl_jax.planning.topology import make_topology
from tests.planning.test_plan import CONFIG, IMAGES
from tests.planning.test_student import with_student

pytestmark = [
    pytest.mark.tpu_aot,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="nothing compiles"),
]


def compiled(config, name, *programs):
    """The plan, whose programs must have compiled."""
    plan = make_plan(
        config, make_topology(name), IMAGES, 4, programs=programs, say=lambda line: None
    )
    assert [program.failed for program in plan.programs] == [None] * len(programs)
    return plan


def test_a_cohort_that_is_smaller_than_the_slice_takes_all_of_it():
    plan = compiled(dataclasses.replace(CONFIG, clients_per_round=5), "v5e:4x4", "round")
    assert (plan.devices, plan.idle) == (16, 0)
    assert plan.programs[0].counted().get("all-reduce")


def test_what_one_host_computes_is_planned_on_a_host_by_itself():
    assert len(make_topology("v5e:4x4").of_one_host()) == 4
    compiled(with_student(), "v5e:4x4", "distillation")


def test_a_chip_of_tpu_v4_is_one_device():
    plan = compiled(CONFIG, "v4:2x2x1", "round")
    assert (plan.devices, plan.device_memory) == (4, 32 * 2**30)
