r"""Unreliable clients: large ones are asked oftener, some never report, some do half their work.

    python -m launch.train --config=launch/configs/availability.py --workdir=runs/availability

On digits, with sizes drawn by `quantity`. metrics.jsonl counts what those who drop out received,
and never sent.
"""

import dataclasses

from semanticfl_jax.config import (
    AlgorithmConfig,
    AvailabilityConfig,
    ExperimentConfig,
    PartitionConfig,
)

from . import digits


def get_config() -> ExperimentConfig:
    """Return size-weighted cohorts of 5 of 20 clients; a fifth drops out, a third straggles."""
    return dataclasses.replace(
        digits.get_config(),
        partition=PartitionConfig(scheme="quantity", alpha=0.5),
        availability=AvailabilityConfig(sampling="size_weighted", dropout=0.2, straggler_share=0.3),
        # Large clients are asked oftener; asked, all count alike.
        algorithm=AlgorithmConfig(weights="uniform"),
        num_clients=20,
    )
