"""Trains one federated run.

    python -m launch.train --config=launch/configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]

Run again with the same --workdir it resumes from the last checkpoint; --overwrite sets aside what
is there and begins anew. Each of several processes of one run (docs/guides/machines.md) also gets
--distributed, or --coordinator_address, --num_processes and --process_id.
"""

from absl import flags as absl_flags

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.describe import describe_choices

from . import distributed, flags


def define() -> None:
    """Define the flags beyond those that every command has."""
    distributed.define_flags()
    flags.define_overwrite()


def main(config: ExperimentConfig, workdir: str) -> None:
    """Run the experiment and print its accuracies, or the headline of another task."""
    # Imported late, so that a mistake on the command line is reported before JAX loads.
    from semanticfl_jax.api import run
    from semanticfl_jax.devices import processes
    from semanticfl_jax.reporting.metric import Metric

    distributed.initialize(workdir)
    summary = run(config, workdir, overwrite=absl_flags.FLAGS.overwrite).summary
    if not processes.is_main():
        return
    metric = Metric.of(summary)
    best, final, mean = metric.fields

    def shown(value: float | None) -> str:
        return "not finite" if value is None else metric.write(value) + metric.unit.strip()

    print(", ".join(f"{name} {shown(summary[name])}" for name in (final, best, mean)))
    if summary.get("diverged_round"):
        print(f"diverged in round {summary['diverged_round']}: numbers are not finite since then")
    if not summary.get("private", True):
        print(summary["note"])


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="digits",
        define=define,
        help=describe_choices,
    )
