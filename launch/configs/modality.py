r"""Clients that lack a kind of anchors: some without text, some without visual, some with neither.

    python -m launch.train --config=launch/configs/modality.py --workdir=runs/modality

SemanticFL on digits; a client drops the term whose anchors it lacks, and is not sent them.
clients.npz records who has what.
"""

from launch.flags import to_config_dict
from semanticfl_jax.config import (
    AlgorithmConfig,
    ExperimentConfig,
    ModalityConfig,
    ModelConfig,
    PartitionConfig,
)


def get_config():
    """Of 10 clients two have no text, two no visual anchors, one neither."""
    return to_config_dict(
        ExperimentConfig(
            dataset="digits",
            augmentation=(),
            model=ModelConfig(width=8),
            partition=PartitionConfig(scheme="nid1", alpha=0.2),
            modality=ModalityConfig(without_text=0.2, without_visual=0.2, without_both=0.1),
            algorithm=AlgorithmConfig(name="semanticfl"),
            rounds=12,
            local_epochs=2,
            batch_size=16,
        )
    )
