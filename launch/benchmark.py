"""Times a task: seconds a round and images a second, compile time apart.

    python -m launch.benchmark --task=family_cifar10 --data_dir=DIR --rounds=5 --json=FILE

Tasks:
  family_cifar10   the protocol of launch/configs/cifar10.py, one local epoch, 5 of 50 clients of
                   about 1,000 images; --width chooses the network (default 16).
"""

import dataclasses
import json

from absl import app
from absl import flags as absl_flags

from launch import flags
from semanticfl_jax.config import (
    ConfigError,
    ExperimentConfig,
    ModelConfig,
    PartitionConfig,
    require,
)

_FAMILY = ExperimentConfig(
    dataset="cifar10",
    partition=PartitionConfig(scheme="iid"),
    num_clients=50,
    clients_per_round=5,
    local_epochs=1,
    public_per_class=0,
)
TASKS = {"family_cifar10": _FAMILY}

_TASK = absl_flags.DEFINE_enum("task", "family_cifar10", sorted(TASKS), "What to time.")
_DATA_DIR = absl_flags.DEFINE_string("data_dir", None, "Prepared TFDS data sets.")
_ROUNDS = absl_flags.DEFINE_integer("rounds", 5, "Rounds to time, after one that is not counted.")
_WIDTH = absl_flags.DEFINE_integer("width", 16, "Width of ResNet-10.")
_JSON = absl_flags.DEFINE_string("json", None, "File to write the figures to.")


def main(arguments: list[str]) -> None:
    """Runs the task and prints its figures."""
    del arguments
    try:
        require(_ROUNDS.value >= 1, "--rounds", "at least 1", _ROUNDS.value)
        config = dataclasses.replace(
            TASKS[_TASK.value], data_dir=_DATA_DIR.value, model=ModelConfig(width=_WIDTH.value)
        )
    except ConfigError as error:
        flags.fail(error)

    from semanticfl_jax.reporting.metrics import write_json
    from semanticfl_jax.simulation.benchmark import measure

    try:
        figures = {"task": _TASK.value, "width": _WIDTH.value}
        figures |= measure(config, _ROUNDS.value)
    except FileNotFoundError as error:
        flags.fail(error)
    print(json.dumps(figures, indent=2))
    if _JSON.value:
        write_json(_JSON.value, figures)


if __name__ == "__main__":
    flags.use_every_core()
    app.run(main)
