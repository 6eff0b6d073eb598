r"""Long-tailed CIFAR-10: a hundred times as many airplanes as trucks, and clients skewed besides.

    python -m launch.partition --config=launch/configs/long_tail.py --workdir=DIR \
        --config.data_dir=DIR

The exponential tail of Cao et al. (NeurIPS 2019) is cut from the training images, and what is left
is dealt by label-Dirichlet shares. The test images stay balanced. It goes with every scheme.
"""

from semanticfl_jax.config import ExperimentConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return imbalance factor 100, alpha 0.5."""
    partition = PartitionConfig(scheme="dirichlet", alpha=0.5, imbalance_factor=100)
    return ExperimentConfig(dataset="cifar10", partition=partition)
