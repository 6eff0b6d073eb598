"""Digits in shards, the pathological split of McMahan et al. (AISTATS 2017).

    python -m launch.train --config=launch/configs/shards.py --workdir=DIR

20 clients with two pieces each of the images sorted by label: two digits, or three where a piece
lies across a border; 2.1 effective classes on average (seed 0).
"""

import dataclasses

from semanticfl_jax.config import ExperimentConfig, PartitionConfig

from . import digits


def get_config() -> ExperimentConfig:
    """Return 20 clients, two shards each; else as digits.py."""
    return dataclasses.replace(
        digits.get_config(),
        num_clients=20,
        partition=PartitionConfig(scheme="shards", shards_per_client=2),
    )
