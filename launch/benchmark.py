r"""Times a task, compile time apart.

    python -m launch.benchmark --task=family_cifar10 --data_dir=DIR [--rounds=5] [--width=16]
    python -m launch.benchmark --task=anchors [--checkpoint=NAME|random-sd15] \
        [--batch_sizes=1,2,4] [--resolution=256] [--dtype=float32|bfloat16] [--repeats=3]
    python -m launch.benchmark --task=augmentation [--width=16] [--repeats=3]

With --json=FILE the figures are also written there. Tasks:
  family_cifar10   rounds: the protocol of launch/configs/cifar10.py, one local epoch, 5 of 50
                   clients of about 1,000 images; --width chooses the network.
  anchors          extraction of diffusion features, with memory. random-sd15 is Stable Diffusion
                   1.5 in its real size with random weights, at 512 pixels unless --resolution.
  augmentation     its share of a training step, for several lists of steps side by side; images
                   of 32x32 noise in batches of 64, --width chooses the network.
"""

import json
from typing import Any

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

#: The flags of each task; another task's are refused.
TASKS = {
    "family_cifar10": ("data_dir", "rounds", "width"),
    "anchors": ("checkpoint", "batch_sizes", "resolution", "dtype", "repeats"),
    "augmentation": ("width", "repeats"),
}
_DTYPES = ("float32", "bfloat16")

_TASK = absl_flags.DEFINE_enum("task", "family_cifar10", sorted(TASKS), "What to time.")
_JSON = absl_flags.DEFINE_string("json", None, "File to write the figures to.")
_DATA_DIR = absl_flags.DEFINE_string("data_dir", None, "Prepared TFDS data sets.")
_ROUNDS = absl_flags.DEFINE_integer("rounds", 5, "Rounds to time, after one that is not counted.")
_WIDTH = absl_flags.DEFINE_integer("width", 16, "Width of ResNet-10.")
_CHECKPOINT = absl_flags.DEFINE_string(
    "checkpoint", "tiny-sd", "A checkpoint as of guidance.checkpoint, or random-sd15."
)
_BATCH_SIZES = absl_flags.DEFINE_list("batch_sizes", ["1", "2", "4"], "Images a batch.")
_RESOLUTION = absl_flags.DEFINE_integer(
    "resolution", None, "Side of the images; by default the checkpoint's own."
)
_DTYPE = absl_flags.DEFINE_enum("dtype", "float32", _DTYPES, "Precision to compute in.")
_REPEATS = absl_flags.DEFINE_integer(
    "repeats", 3, "Batches, or turns, to time, after one not counted."
)


def check_flags(task: str) -> None:
    """Raises `ConfigError` for a flag of another task or a value out of range."""
    listed = ", ".join(f"--{name}" for name in TASKS[task])
    for name in sorted(set().union(*TASKS.values()) - set(TASKS[task])):
        if absl_flags.FLAGS[name].present:
            raise ConfigError(f"--{name} is not for --task={task}, which takes {listed}")
    for name in ("rounds", "width", "repeats"):
        value = absl_flags.FLAGS[name].value
        require(value >= 1, f"--{name}", "at least 1", value)
    sizes = _BATCH_SIZES.value
    whole = bool(sizes) and all(size.isdecimal() and int(size) >= 1 for size in sizes)
    require(whole, "--batch_sizes", "whole numbers of at least 1", ",".join(sizes))


def time_family_cifar10() -> dict[str, Any]:
    """Rounds of the family's protocol."""
    from semanticfl_jax.simulation.benchmark import measure

    config = ExperimentConfig(
        dataset="cifar10",
        data_dir=_DATA_DIR.value,
        model=ModelConfig(width=_WIDTH.value),
        partition=PartitionConfig(scheme="iid"),
        num_clients=50,
        clients_per_round=5,
        local_epochs=1,
        public_per_class=0,
    )
    return {"width": _WIDTH.value, **measure(config, _ROUNDS.value)}


def time_anchors() -> dict[str, Any]:
    """Extraction of features."""
    from semanticfl_jax.diffusion.benchmark import measure

    return measure(
        _CHECKPOINT.value,
        dtype=_DTYPE.value,
        batch_sizes=tuple(map(int, _BATCH_SIZES.value)),
        resolution=_RESOLUTION.value,
        repeats=_REPEATS.value,
    )


def time_augmentation() -> dict[str, Any]:
    """Training steps with and without augmentation."""
    from semanticfl_jax.simulation.augmentation_benchmark import measure

    return measure(ModelConfig(width=_WIDTH.value), repeats=_REPEATS.value)


#: What runs each task.
_RUN = {
    "family_cifar10": time_family_cifar10,
    "anchors": time_anchors,
    "augmentation": time_augmentation,
}


def main(arguments: list[str]) -> None:
    """Runs the task and prints its figures."""
    if len(arguments) > 1:
        flags.fail(f"unexpected argument {arguments[1]!r}")
    try:
        check_flags(_TASK.value)
        figures = {"task": _TASK.value, **_RUN[_TASK.value]()}
    except (ValueError, FileNotFoundError) as error:
        flags.fail(error)
    print(json.dumps(figures, indent=2))
    if _JSON.value:
        from semanticfl_jax.reporting.metrics import write_json

        write_json(_JSON.value, figures)


if __name__ == "__main__":
    flags.use_every_core()
    app.run(main)
