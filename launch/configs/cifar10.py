"""CIFAR-10 with the protocol of the FedDifRC family (ICCV 2025), which SemanticFL follows.

    python -m launch.train --config=launch/configs/cifar10.py --workdir=DIR --config.data_dir=DIR

ResNet-10 of width 64, 10 clients, 5 a round, 10 local epochs, NID1 label skew of alpha 0.2. The
FedDifRC paper reports 84.65 % for FedAvg here (best round). Not yet run to its end by us: 50 rounds
are 12.5 million training images, a matter for an accelerator. On 2 cores, --config.model.width=16
--config.rounds=3 --config.local_epochs=1 takes 3 minutes and ends near 25 %.
"""

from semanticfl_jax.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Return the family's protocol: these are the defaults of `ExperimentConfig`."""
    return ExperimentConfig(dataset="cifar10")
