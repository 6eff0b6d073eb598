"""Digits dealt in very different amounts, of all classes alike.

    python -m launch.train --config=launch/configs/quantity.py --workdir=DIR

20 clients whose sizes follow Dirichlet(0.3): from 1 image to 316 (seed 0; Gini 0.54). Large
clients take many more local steps a round than small ones, for which FedNova makes up:
--config.algorithm.name=fednova.
"""

import dataclasses

from semanticfl_jax.config import ExperimentConfig, PartitionConfig

from . import digits


def get_config() -> ExperimentConfig:
    """Return 20 clients, sizes by Dirichlet(0.3); else as digits.py."""
    return dataclasses.replace(
        digits.get_config(),
        num_clients=20,
        partition=PartitionConfig(scheme="quantity", alpha=0.3),
    )
