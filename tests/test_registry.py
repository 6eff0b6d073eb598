"""Entries of the registries: what a builder makes is what it should make."""

import dataclasses
import functools

import pytest

from semanticfl_jax.algorithms import complete
from semanticfl_jax.algorithms.aggregators import median
from semanticfl_jax.config import AggregationConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.registry import Entry
from tests.federation import CONFIG, FEDAVG


def nothing(settings, context):
    """A builder without a return."""


def failing(settings, context):
    """A builder with a mistake."""
    return settings["width"]


def test_a_builder_that_fails_is_named():
    message = r"the builder of mine, tests.test_registry:failing, fails: TypeError: 'NoSettings'"
    with pytest.raises(SemanticFLError, match=message):
        Entry("mine", failing).build(None, None)
    with pytest.raises(
        SemanticFLError, match="the builder of mine, functools:partial, fails: Type"
    ):
        Entry("mine", functools.partial(failing)).build(None, None)


def test_a_builder_that_makes_something_else_is_named():
    entry = Entry("mine", nothing)
    assert entry.build(None, None) is None
    message = r"the builder of mine, tests.test_registry:nothing, must return a int, got None"
    with pytest.raises(SemanticFLError, match=message):
        entry.build(None, None, int)
    assert Entry("five", lambda settings, context: 5).build(None, None, int) == 5


@pytest.mark.parametrize(
    ("aggregation", "name"),
    [({"transforms": ("clip",)}, "median"), ({"aggregator": "krum"}, None), ({}, "median")],
)
def test_an_algorithm_keeps_its_aggregator_and_no_other_can_be_asked_for(aggregation, name):
    config = dataclasses.replace(CONFIG, aggregation=AggregationConfig(**aggregation))
    own, context = dataclasses.replace(FEDAVG, aggregator=median()), AlgorithmContext(config)
    if name is None:
        message = "must be mean with fedavg, which has an aggregator of its own, median, got krum"
        with pytest.raises(SemanticFLError, match=message):
            complete(own, context)
        assert complete(FEDAVG, context).aggregator.name == "krum"
        return
    made = complete(own, context)
    assert made.aggregator.name == name
    assert len(made.transforms) == len(aggregation.get("transforms", ()))
