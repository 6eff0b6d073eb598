r"""The CIFAR-10 benchmark of pfl-research: 1,000 users of 50 IID images, 50 a round.

    python -m launch.train --config=launch/configs/pfl_cifar10.py --workdir=DIR \
        --config.data_dir=DIR
    python -m launch.benchmark --task=pfl_cifar10 --data_dir=DIR [--rounds=1500]

Granqvist et al., "pfl-research: simulation framework for accelerating research in private federated
learning" (NeurIPS 2024), IID and without privacy: one epoch in batches of 10, SGD of rate 0.1, the
server averages, a CNN of 1,626,442 parameters, 1,500 rounds. We ran the first 328 of them, seed 0:
64.7 % and rising.

Where it differs from what the published benchmark carries out (comparisons/peers/README.md):

- users are drawn without replacement; there one user can occur twice in a cohort;
- their images are reshuffled in every round; there they keep their order;
- biases start at zero; there uniform within 1 / sqrt(fan in);
- clients weigh by size, which is equal; there uniformly: the same average;
- images are normalised by the family's constants, which differ from the training split's own by
  less than 0.5 of 255; and channels are where they belong, where its preprocessing mixes them up.
"""

from semanticfl_jax.config import ExperimentConfig, ModelConfig, PartitionConfig


def get_config() -> ExperimentConfig:
    """Return FedAvg with plain SGD on all 50,000 images; nothing is held out, nothing augmented."""
    return ExperimentConfig(
        dataset="cifar10",
        augmentation=(),
        public_per_class=0,
        model=ModelConfig(name="cnn"),
        partition=PartitionConfig(scheme="iid"),
        num_clients=1000,
        clients_per_round=50,
        rounds=1500,
        local_epochs=1,
        batch_size=10,
        learning_rate=0.1,
        momentum=0.0,
        weight_decay=0.0,
        eval_every=10,
        checkpoint_every=100,
    )
