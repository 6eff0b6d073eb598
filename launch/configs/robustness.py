r"""Attacks and aggregators on digits, all 20 clients in every round, 4 of whom attack.

    python -m launch.robustness --config=launch/configs/robustness.py --workdir=runs/robustness

Softmax regression, so that compiling and training are short: the whole table has 72 pairs, with
three seeds each. What was run of it is in docs/results/privacy.md.
"""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig, RuntimeConfig


def get_config() -> ExperimentConfig:
    """Return 20 clients, mildly skewed."""
    return ExperimentConfig(
        dataset="digits",
        augmentation=(),
        model=ModelConfig("linear"),
        partition=PartitionConfig(scheme="nid1", alpha=1.0),
        public_per_class=10,
        num_clients=20,
        clients_per_round=20,
        rounds=30,
        local_epochs=2,
        batch_size=16,
        learning_rate=0.005,
        eval_every=3,
        checkpoint_every=1000,
        runtime=RuntimeConfig(num_devices=1),
    )
