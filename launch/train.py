"""Trains one federated run.

    python -m launch.train --config=launch/configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]

Run again with the same --workdir it resumes from the last checkpoint. One of several processes of
the same run (README, "Several machines") is also told --distributed, or --coordinator_address,
--num_processes and --process_id.
"""

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.describe import describe_choices

from . import distributed, flags


def main(config: ExperimentConfig, workdir: str) -> None:
    """Run the experiment and print its accuracies."""
    # Imported late, so that a mistake on the command line is reported before JAX loads.
    from semanticfl_jax.api import Stopped, run
    from semanticfl_jax.devices import processes

    distributed.initialize()
    try:
        summary = run(config, workdir).summary
    except Stopped as stop:
        flags.stop(stop)
    if not processes.is_main():
        return
    names = ("final_accuracy", "best_accuracy", "mean_last10_accuracy")
    print(", ".join(f"{name} {100 * summary[name]:.2f}%" for name in names))
    if not summary.get("private", True):
        print(summary["note"])


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="digits",
        define=distributed.define_flags,
        help=describe_choices,
    )
