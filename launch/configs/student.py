r"""A start from the semantic student, which gained most on CIFAR-10 (docs/results/accuracy.md).

    python -m launch.train --config=launch/configs/student.py --workdir=DIR --config.data_dir=DIR

cifar10_cpu.py, with clients whose network starts from the student that comes with the package.
They have neither class anchors nor targets; those of each image come back with
`--config.guidance.student.weight=5`. Any algorithm takes the start;
`--config.algorithm.name=scaffold` gained most with it.
"""

import dataclasses

from semanticfl_jax.config import ExperimentConfig, GuidanceConfig, StudentConfig

from . import cifar10_cpu


def get_config() -> ExperimentConfig:
    """Return cifar10_cpu.py with FedAvg from the bundled student of width 16."""
    return dataclasses.replace(
        cifar10_cpu.get_config(),
        guidance=GuidanceConfig(
            enabled=True,
            lambda_kd=0.0,
            lambda_con=0.0,
            student=StudentConfig(enabled=True, weight=0.0),
        ),
    )
