r"""CIFAR-10 within reach of two processor cores, for comparing methods: minutes a run.

    python -m launch.compare --config=launch/configs/cifar10_cpu.py --workdir=DIR \
        --config.data_dir=DIR --config.partition.alpha=0.05 --methods="fedavg; semanticfl; \
        semanticfl guidance.anchors=shuffled; semanticfl guidance.anchors=random_orthogonal"

All training images, dealt to 50 clients of about 1,000, of whom 5 train one epoch a round: fewer
images a round than the family's 10 clients of 5,000 with 10 epochs, and a ResNet-10 an eighth as
wide. FedAvg is then well above chance and well below IID training; see docs/results.
"""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """50 clients, 5 a round, one local epoch in batches of 16, a narrow ResNet-10."""
    return ExperimentConfig(
        dataset="cifar10",
        model=ModelConfig(width=8),
        partition=PartitionConfig(scheme="nid1", alpha=0.05),
        num_clients=50,
        clients_per_round=5,
        rounds=30,
        local_epochs=1,
        batch_size=16,
        learning_rate=0.02,
        weight_decay=1e-4,
        eval_every=2,
    )
