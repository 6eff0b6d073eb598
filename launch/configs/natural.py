r"""CIFAR-100 dealt by a column: each client is one of its 20 superclasses, with five classes.

    python -m launch.partition --config=launch/configs/natural.py --workdir=DIR \
        --config.data_dir=DIR

With fewer clients (--config.num_clients=5) each holds several superclasses, in equal numbers, drawn
at random.
"""

from semanticfl_jax.config import ExperimentConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return 20 clients by `coarse_label`, 5 a round."""
    partition = PartitionConfig(scheme="natural", column="coarse_label")
    return ExperimentConfig(
        dataset="cifar100", partition=partition, num_clients=20, weight_decay=1e-4
    )
