r"""Clients that lack a kind of anchors: some without text, some without visual, some with neither.

    python -m launch.train --config=launch/configs/modality.py --workdir=runs/modality

SemanticFL on digits; a client drops the term whose anchors it lacks, and is not sent them.
clients.npz records who has what.
"""

import dataclasses

from semanticfl_jax.config import AlgorithmConfig, ExperimentConfig, ModalityConfig

from . import digits


def get_config() -> ExperimentConfig:
    """Return 10 clients: two have no text, two no visual anchors, one neither."""
    return dataclasses.replace(
        digits.get_config(),
        modality=ModalityConfig(without_text=0.2, without_visual=0.2, without_both=0.1),
        algorithm=AlgorithmConfig(name="semanticfl"),
    )
