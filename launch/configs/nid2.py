"""CIFAR-10 with NID2: clients of a single class beside clients that hold all.

    python -m launch.partition --config=launch/configs/nid2.py --workdir=DIR --config.data_dir=DIR

The other settings are the FedDifRC family's, which has not published its exact NID2. Ours: 6 biased
clients, each with half of its only class (2,490 images), and 4 unbiased ones (8,715 each). The plot
shows six lone bubbles on the diagonal. FedDisco's NIID-2, with which papers compare, is
--config.num_clients=6 --config.partition.biased_clients=5 --config.partition.classes_per_biased=2
--config.partition.biased_share=0.8333.
"""

from semanticfl_jax.config import ExperimentConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return 6 biased clients of one class, 4 unbiased."""
    return ExperimentConfig(dataset="cifar10", partition=PartitionConfig(scheme="nid2"))
