r"""An audit of central privacy on digits: 100 honest clients, all in every round.

    python -m launch.audit --config=launch/configs/audit.py --workdir=runs/audit

Softmax regression. The canaries' updates reach the clipping norm, as the bound assumes.
"""

from semanticfl_jax.config import (
    ExperimentConfig,
    ModelConfig,
    PartitionConfig,
    PrivacyConfig,
    RuntimeConfig,
)


def get_config() -> ExperimentConfig:
    """Return 100 clients of equal size, and a privacy mechanism whose noise the command chooses."""
    return ExperimentConfig(
        dataset="digits",
        augmentation=(),
        model=ModelConfig("linear"),
        partition=PartitionConfig(scheme="iid"),
        privacy=PrivacyConfig("central", noise_multiplier=1.0, delta=1e-5, settings={"clip": 0.02}),
        public_per_class=0,
        num_clients=100,
        clients_per_round=100,
        rounds=16,
        local_epochs=2,
        batch_size=16,
        learning_rate=0.01,
        eval_every=16,
        checkpoint_every=1000,
        runtime=RuntimeConfig(num_devices=1),
    )
