"""What a run says of itself before anything compiles."""

import pytest

from semanticfl_jax.config import ExperimentConfig, from_dict
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.setting_up import advice
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
