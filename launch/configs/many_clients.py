r"""Many small clients: 20 images each, one epoch in one batch, ResNet-10 of width 8.

    python -m launch.train --config=launch/configs/many_clients.py --workdir=DIR \
        --config.data_dir=DIR
    python -m launch.benchmark --task=many_clients [--data_dir=DIR]

Our choice. Without sharing, CIFAR-10's 50,000 images fill 2,500 such clients: that is what
launch.train runs. The benchmark deals them to 100,000 clients, several of whom then hold the same
image, and asks 1,000 of them a round. Not yet trained to its end by us.
"""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return 2,500 clients, 100 a round."""
    return ExperimentConfig(
        dataset="cifar10",
        public_per_class=0,
        model=ModelConfig(width=8),
        partition=PartitionConfig(scheme="iid"),
        num_clients=2500,
        clients_per_round=100,
        rounds=500,
        local_epochs=1,
        batch_size=20,
        learning_rate=0.1,
        momentum=0.0,
        eval_every=10,
        checkpoint_every=50,
    )
