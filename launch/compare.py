r"""Trains several algorithms with several seeds, one after another, and compares them.

    python -m launch.compare --config=launch/configs/digits.py --workdir=DIR \
        --algorithms=fedavg,semanticfl --seeds=0,1,2 [--config.FIELD=VALUE ...]

Every run has its own directory, DIR/ALGORITHM-seedN, and is what launch.train would make of it: run
the command again and finished runs are read, interrupted ones go on.
"""

import dataclasses
from pathlib import Path

from absl import flags as absl_flags

from launch import flags
from semanticfl_jax.config import ConfigError, ExperimentConfig, from_dict, to_dict


def define() -> None:
    """The flags beyond those that every command has."""
    absl_flags.DEFINE_list("algorithms", ["fedavg", "semanticfl"], "Algorithms to train.")
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train each algorithm with.")


def plan(config: ExperimentConfig, algorithms: list[str], seeds: list[str]) -> dict:
    """The runs to make, {name: configuration}; raises `ConfigError` for one that is not valid."""
    runs = {}
    for seed in seeds:
        if not seed.isdecimal():
            raise ConfigError(f"--seeds must be whole numbers, got {seed!r}")
        for name in algorithms:
            values = to_dict(dataclasses.replace(config, seed=int(seed)))
            values["algorithm"]["name"] = name
            runs[f"{name}-seed{seed}"] = from_dict(ExperimentConfig, values)
    return runs


def main(config: ExperimentConfig, workdir: str) -> None:
    """Trains what is missing, then prints and plots the comparison."""
    values = absl_flags.FLAGS
    try:
        runs = plan(config, values.algorithms, values.seeds)
    except ConfigError as error:
        flags.fail(error)

    from semanticfl_jax.reporting.report import compare
    from semanticfl_jax.simulation import experiment

    for number, (name, run_config) in enumerate(runs.items(), start=1):
        print(f"\n[{number}/{len(runs)}] {name}")
        try:
            experiment.run(run_config, Path(workdir) / name)
        except experiment.InputError as error:
            flags.fail(error)
        except experiment.Stopped as stop:
            flags.stop(stop)
    print("\n" + compare([Path(workdir) / name for name in runs], out=workdir))


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits", define=define)
