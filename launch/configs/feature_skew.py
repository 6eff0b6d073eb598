r"""Clients with bad cameras: half of them see noise, blur, few pixels or little contrast.

    python -m launch.train --config=launch/configs/feature_skew.py --workdir=runs/feature_skew

On digits, dealt evenly, so that nothing but the images differs. plots/corruptions.png shows them,
clients.npz records each client's kind and severity. --config.dataset=cifar10 takes real images.
"""

import dataclasses

from semanticfl_jax.config import ExperimentConfig, FeatureSkewConfig, PartitionConfig

from . import digits


def get_config() -> ExperimentConfig:
    """Return half of 10 clients corrupted, by one of four kinds each."""
    kinds = ("noise", "blur", "low_resolution", "contrast")
    return dataclasses.replace(
        digits.get_config(),
        partition=PartitionConfig(scheme="iid"),
        feature_skew=FeatureSkewConfig(corruptions=kinds, share=0.5),
    )
