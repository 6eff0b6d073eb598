r"""Times a task, compile time apart.

    python -m launch.benchmark --task=pfl_cifar10 --data_dir=DIR [--rounds=20]
    python -m launch.benchmark --task=family_cifar10 --data_dir=DIR [--rounds=5] [--width=16] \
        [--cohort=5] [--dtype=float32|bfloat16]
    python -m launch.benchmark --task=many_clients [--data_dir=DIR] [--num_clients=100000] \
        [--cohort=1000] [--rounds=5] [--width=8]
    python -m launch.benchmark --task=host_data [--num_clients=5000] [--cohort=100] \
        [--rounds=5] [--width=8]
    python -m launch.benchmark --task=privacy [--data_dir=DIR] [--num_clients=100000] \
        [--cohort=1000] [--rounds=5] [--width=8]
    python -m launch.benchmark --task=guidance --data_dir=DIR [--rounds=5] [--width=16]
    python -m launch.benchmark --task=student --data_dir=DIR [--rounds=5] [--width=16]
    python -m launch.benchmark --task=anchors [--checkpoint=NAME|random-sd15] \
        [--batch_sizes=1,2,4] [--resolution=256] [--dtype=float32|bfloat16] [--repeats=3]
    python -m launch.benchmark --task=augmentation [--width=16] [--repeats=3]
    python -m launch.benchmark --task=tuning [--width=16] [--cohort=32] \
        [--dtype=float32|bfloat16] [--repeats=3]

--json=FILE writes the measurements to a file, too. --rounds are timed after one that is not,
--width chooses the ResNet-10, and --tuning=never spares accelerators the measurement of lowering
and chunk. Tasks:
  pfl_cifar10      rounds: pfl-research's published benchmark, launch/configs/pfl_cifar10.py.
  family_cifar10   rounds: the protocol of launch/configs/cifar10.py, but one local epoch and 5 of
                   50 clients of 1,000 IID images, as comparisons/peers runs it.
  many_clients     rounds: --cohort of --num_clients clients of 20 images each, and whether time
                   follows the cohort and memory does not follow the clients. Noise in place of
                   CIFAR-10 without --data_dir.
  host_data        rounds of --cohort of --num_clients clients of 10 images of 64x64 each, in a
                   memory-mapped file of noise, with runtime.data_memory=host and =device in turn;
                   --num_clients=100000 is 12 GB of images.
  privacy          rounds of many_clients with and without central differential privacy, in turn;
                   cohorts drawn by Poisson sampling, group normalisation.
  guidance         rounds of family_cifar10 with and without semantic guidance, in turn.
  student          rounds of family_cifar10 without a student, with its targets computed once, and
                   computed in each step, in turn.
  anchors          extraction of diffusion features, with memory. random-sd15 is Stable Diffusion
                   1.5 in its real size with random weights, at 512 pixels unless --resolution.
  augmentation     its share of a training step, for several lists of steps side by side; images
                   of 32x32 noise in batches of 64.
  tuning           training steps with every lowering of the convolutions, and 1, 2, 4, ... clients
                   up to --cohort at a time on each device; 32x32 noise in batches of 64.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags as absl_flags
from absl import logging

from semanticfl_jax.config import (
    ConfigError,
    ExperimentConfig,
    ModelConfig,
    PartitionConfig,
    RuntimeConfig,
    require,
)

from . import flags

_DTYPES = ("float32", "bfloat16")

_JSON = flags.define_path("json", "File to write the measurements to.")
flags.define_common()
_DATA_DIR = flags.define_path("data_dir", "Directory of the data set, as --config.data_dir.")
_ROUNDS = absl_flags.DEFINE_integer("rounds", 5, "Rounds to time, after one that is not counted.")
_WIDTH = absl_flags.DEFINE_integer(
    "width", None, "Width of ResNet-10; by default 16, and 8 for many_clients, host_data, privacy."
)
_NUM_CLIENTS = absl_flags.DEFINE_integer(
    "num_clients", None, "Clients: 100000 of many_clients and privacy, 5000 of host_data."
)
_COHORT = absl_flags.DEFINE_integer(
    "cohort",
    None,
    "Clients a round: 5 of family_cifar10, 1000 of many_clients and privacy, 100 of host_data, 32 "
    "of tuning, on each device.",
)
_TUNING = absl_flags.DEFINE_enum(
    "tuning", "auto", ["auto", "always", "never"], "Of rounds, as runtime.tuning."
)
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


class Task(NamedTuple):
    """What can be timed.

    Attributes:
      flags: those that it takes; another task's are refused.
      run: times it, given the task, and returns its measurements.
      num_clients: how many there are by default; None where there is no federation.
      cohort: clients a round, or side by side, by default.
    """

    flags: tuple[str, ...]
    run: Callable[[Task], dict[str, Any]]
    num_clients: int | None = None
    cohort: int = 1


def _rounds(
    module: str, config_of: Callable[[Task], ExperimentConfig], noise: bool = False
) -> Callable[[Task], dict[str, Any]]:
    """Return what times rounds.

    Args:
      module: of `semanticfl_jax.benchmarks`, whose `measure` does.
      config_of: the configuration of a task.
      noise: whether images of noise, as many as CIFAR-10 has, do where --data_dir is not given.
    """

    def run(task: Task) -> dict[str, Any]:
        from semanticfl_jax.benchmarks.noise import noise_dataset
        from semanticfl_jax.data import sources

        config = config_of(task)
        measure = importlib.import_module(f"semanticfl_jax.benchmarks.{module}").measure
        drawn = noise and config.data_dir is None
        dataset = noise_dataset(50_000, test=10_000) if drawn else sources.from_config(config)
        width = {"width": config.model.width} if "width" in task.flags else {}
        return {**width, **measure(config, _ROUNDS.value, dataset)}

    return run


def _runtime(**changes: Any) -> RuntimeConfig:
    return RuntimeConfig(tuning=_TUNING.value, **changes)


def _installed(name: str) -> ExperimentConfig:
    """Return the configuration launch/configs/NAME.py, with --data_dir."""
    config = flags.installed_config(name)
    return dataclasses.replace(config, data_dir=_DATA_DIR.value, runtime=_runtime())


def _pfl(task: Task) -> ExperimentConfig:
    """Return pfl-research's benchmark."""
    del task
    return _installed("pfl_cifar10")


def _family(task: Task) -> ExperimentConfig:
    """Return the family's protocol in short rounds; evaluated once, at the end."""
    return ExperimentConfig(
        dataset="cifar10",
        data_dir=_DATA_DIR.value,
        model=ModelConfig(width=_WIDTH.value or 16),
        partition=PartitionConfig(scheme="iid"),
        num_clients=_num_clients(task),
        clients_per_round=_COHORT.value or task.cohort,
        precision=_DTYPE.value,
        runtime=_runtime(),
        local_epochs=1,
        public_per_class=0,
        eval_every=_ROUNDS.value + 1,
    )


def _many_clients(task: Task) -> ExperimentConfig:
    """Return the configuration of many clients."""
    import jax

    config, clients = _installed("many_clients"), _num_clients(task)
    return dataclasses.replace(
        config,
        num_clients=clients,
        clients_per_round=_COHORT.value or min(task.cohort, clients),
        model=dataclasses.replace(config.model, width=_WIDTH.value or config.model.width),
        # One accelerator; of a CPU, whose cores are devices, all.
        runtime=_runtime(num_devices=0 if jax.default_backend() == "cpu" else 1),
        eval_every=_ROUNDS.value + 1,
    )


def _num_clients(task: Task) -> int:
    assert task.num_clients is not None
    return _NUM_CLIENTS.value or task.num_clients


def _host_data(task: Task) -> dict[str, Any]:
    """Time rounds with images in host memory and on the devices."""
    from semanticfl_jax.benchmarks.host_data import measure

    return measure(_many_clients(task), _ROUNDS.value)


def _anchors(task: Task) -> dict[str, Any]:
    """Time the extraction of features."""
    from semanticfl_jax.benchmarks.features import measure

    del task
    return measure(
        _CHECKPOINT.value,
        dtype=_DTYPE.value,
        batch_sizes=tuple(map(int, _BATCH_SIZES.value)),
        resolution=_RESOLUTION.value,
        repeats=_REPEATS.value,
    )


def _augmentation(task: Task) -> dict[str, Any]:
    """Time training steps with and without augmentation."""
    from semanticfl_jax.benchmarks.augmentation import measure

    del task
    return measure(ModelConfig(width=_WIDTH.value or 16), repeats=_REPEATS.value)


def _tuning(task: Task) -> dict[str, Any]:
    """Time training steps with every lowering and chunk."""
    from semanticfl_jax.benchmarks.tuning import measure

    config = ExperimentConfig(
        model=ModelConfig(width=_WIDTH.value or 16), precision=_DTYPE.value, local_epochs=1
    )
    return measure(config, largest_chunk=_COHORT.value or task.cohort, repeats=_REPEATS.value)


def _of_family(flags: tuple[str, ...], module: str) -> Task:
    """Return a task of the family's protocol."""
    return Task(flags, _rounds(module, _family), num_clients=50, cohort=5)


def _of_many_clients(flags: tuple[str, ...], module: str) -> Task:
    """Return a task of many clients."""
    run = _rounds(module, _many_clients, noise=True)
    return Task(flags, run, num_clients=100_000, cohort=1000)


TASKS = {
    "pfl_cifar10": Task(("data_dir", "rounds", "tuning"), _rounds("rounds", _pfl)),
    "family_cifar10": _of_family(
        ("data_dir", "rounds", "width", "cohort", "dtype", "tuning"), "rounds"
    ),
    "many_clients": _of_many_clients(
        ("data_dir", "num_clients", "cohort", "rounds", "width", "tuning"), "many_clients"
    ),
    "host_data": Task(
        ("num_clients", "cohort", "rounds", "width", "tuning"),
        _host_data,
        num_clients=5_000,
        cohort=100,
    ),
    "privacy": _of_many_clients(
        ("data_dir", "num_clients", "cohort", "rounds", "width", "tuning"), "privacy"
    ),
    "guidance": _of_family(("data_dir", "rounds", "width", "tuning"), "guidance"),
    "student": _of_family(("data_dir", "rounds", "width", "tuning"), "student"),
    "anchors": Task(("checkpoint", "batch_sizes", "resolution", "dtype", "repeats"), _anchors),
    "augmentation": Task(("width", "repeats"), _augmentation),
    "tuning": Task(("width", "cohort", "dtype", "repeats"), _tuning, cohort=32),
}
_TASK = absl_flags.DEFINE_enum("task", "family_cifar10", sorted(TASKS), "What to time.")


def check_flags(name: str) -> Task:
    """Return the task; raise `ConfigError` for a flag of another or a value out of range."""
    task = TASKS[name]
    listed = ", ".join(f"--{flag}" for flag in task.flags)
    for flag in sorted({flag for each in TASKS.values() for flag in each.flags} - {*task.flags}):
        if absl_flags.FLAGS[flag].present:
            raise ConfigError(f"--{flag} is not for --task={name}, which takes {listed}")
    for flag in ("rounds", "width", "num_clients", "cohort", "repeats", "resolution"):
        value = absl_flags.FLAGS[flag].value
        require(value is None or value >= 1, f"--{flag}", "at least 1", value)
    if task.num_clients is not None and _COHORT.value is not None:
        most = _num_clients(task)
        named = f"--num_clients ({most})" if "num_clients" in task.flags else most
        require(_COHORT.value <= most, "--cohort", f"at most {named}", _COHORT.value)
    sizes = _BATCH_SIZES.value
    whole = bool(sizes) and all(size.isdecimal() and int(size) >= 1 for size in sizes)
    require(whole, "--batch_sizes", "whole numbers of at least 1", ",".join(sizes))
    return task


def describe_machine() -> dict[str, Any]:
    """Return what the task will run on, and how busy others are; warn where it matters."""
    from semanticfl_jax.devices import machine

    found = machine.host() | machine.load() | machine.devices()
    print(
        f"{found['cores']} cores of {found['cpu']}, {found['memory_bytes'] / 1e9:.0f} GB; "
        f"{found['devices']} x {found['device_kind']}; load average {found['load_average']:.2f}, "
        f"others use {found['busy_before']:.0%}"
    )
    if found["busy_before"] > machine.BUSY:
        print("warning: other processes are busy, the times mean little")
    return found


def main(arguments: list[str]) -> None:
    """Run the task and print its figures."""
    if len(arguments) > 1:
        flags.fail(f"unexpected argument {arguments[1]!r}")
    task = check_flags(_TASK.value)
    logging.set_verbosity(logging.WARNING)
    machine = describe_machine()
    figures = {"task": _TASK.value, "machine": machine, **task.run(task)}
    from semanticfl_jax.files import to_json_values, write_json

    print(json.dumps(to_json_values(figures), indent=2))
    if _JSON.value is not None:
        write_json(_JSON.value, figures)


if __name__ == "__main__":
    flags.prepare_environment()
    flags.run_plain(main)
