r"""Unreliable clients: large ones are asked oftener, some never report, some do half their work.

    python -m launch.train --config=launch/configs/availability.py --workdir=runs/availability

On digits, with sizes drawn by `quantity`. metrics.jsonl counts what those who drop out received,
and never sent.
"""

from launch.flags import to_config_dict
from semanticfl_jax.config import (
    AlgorithmConfig,
    AvailabilityConfig,
    ExperimentConfig,
    ModelConfig,
    PartitionConfig,
)


def get_config():
    """Size-weighted cohorts of 5 of 20 clients; a fifth drops out, a third straggles."""
    return to_config_dict(
        ExperimentConfig(
            dataset="digits",
            augmentation=(),
            model=ModelConfig(width=8),
            partition=PartitionConfig(scheme="quantity", alpha=0.5),
            availability=AvailabilityConfig(
                sampling="size_weighted", dropout=0.2, straggler_share=0.3
            ),
            # Large clients are asked oftener; asked, all count alike.
            algorithm=AlgorithmConfig(weights="uniform"),
            num_clients=20,
            rounds=12,
            local_epochs=2,
            batch_size=16,
        )
    )
