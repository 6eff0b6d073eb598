r"""CIFAR-10 within reach of two processor cores, for comparing methods: half an hour a run.

    python -m launch.compare --config=launch/configs/cifar10_cpu.py --workdir=DIR \
        --config.data_dir=DIR --config.partition.alpha=0.05 --methods="fedavg; semanticfl; \
        semanticfl guidance.anchors=shuffled; semanticfl guidance.anchors=random_orthogonal"

10,000 training images, 1,000 of each class, divided among 10 clients, of whom 5 train three epochs
a round; a ResNet-10 a quarter as wide as the family's; a learning rate that falls by 3 % a round.
Half of the clients take part in a round, so that it matters little who is drawn: with 5 of 50
clients FedAvg jumps between 13 and 25 % from one evaluation to the next. FedAvg took 33 minutes for
its 30 rounds on one core of two, beside other work (docs/results/accuracy.md).
"""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, OptimizerConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return 10 clients of about 1,000 images, 5 a round, three local epochs in batches of 16."""
    return ExperimentConfig(
        dataset="cifar10",
        train_limit=10_000,
        model=ModelConfig(width=16),
        partition=PartitionConfig(scheme="nid1", alpha=0.05),
        num_clients=10,
        clients_per_round=5,
        rounds=30,
        local_epochs=3,
        batch_size=16,
        learning_rate=0.02,
        weight_decay=1e-4,
        optimizer=OptimizerConfig(
            schedule="exponential", settings={"exponential": {"decay": 0.97}}
        ),
    )
