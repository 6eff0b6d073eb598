"""What a run says of itself before anything compiles."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.setting_up import Given, advice, set_up
from tests.federation import CLASSES, SoftmaxRegression, TwoLayers, noise_images


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (TwoLayers, {"aggregation": {"transforms": ["clip"]}}, "clip: "),
        (TwoLayers, {"aggregation": {"aggregator": "norm_bound"}}, "norm bound: "),
        (TwoLayers, {}, None),
        (SoftmaxRegression, {"aggregation": {"transforms": ["clip"]}}, None),
        # Statistics that stay with the clients are in no norm.
        (
            TwoLayers,
            {
                "algorithm": {"name": "fedbn", "fedbn": {"names": ["mean"]}},
                "aggregation": {"transforms": ["clip"]},
            },
            None,
        ),
    ],
)
def test_norms_that_running_statistics_count_in_are_spoken_of(model, changes, said):
    config = from_dict(ExperimentConfig, {"dataset": "digits", "public_per_class": 0, **changes})
    parts = make_parts(config, make_federation(noise_images(), config), module=model(CLASSES))
    lines = [line for line in advice(parts) if "running statistics count in the norm" in line]
    assert len(lines) == (said is not None) and all(line.startswith(said) for line in lines)


@pytest.mark.parametrize(("clients", "said"), [(2, ["2 clients share the 5 values"]), (5, [])])
def test_clients_that_share_values_of_a_column_are_spoken_of(clients, said):
    fields = {"num_clients": clients, "clients_per_round": 2, "public_per_class": 0}
    natural = {"scheme": "natural", "column": "writer"}
    config = from_dict(ExperimentConfig, {"dataset": "digits", "partition": natural, **fields})
    dataset = dataclasses.replace(noise_images(), columns={"writer": np.arange(140) % 5})
    lines = []
    set_up(Given(config, dataset, model=SoftmaxRegression(4)), make_mesh(1), None, lines.append)
    assert [line[:28] for line in lines if "column 'writer'" in line] == said
