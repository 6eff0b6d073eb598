"""Trains one federated run.

    python -m launch.train --config=launch/configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]

Run again with the same --workdir it resumes from the last checkpoint. One of several processes of
the same run (docs/guides/machines.md) is also told --distributed, or --coordinator_address,
--num_processes and --process_id.
"""

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.describe import describe_choices

from . import distributed, flags


def main(config: ExperimentConfig, workdir: str) -> None:
    """Run the experiment and print its accuracies, or the headline of another task."""
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
    metric = summary.get("metric", "test_accuracy").removeprefix("test_")
    factor, form = (100, ".2f") if metric == "accuracy" else (1, ".4g")
    unit = "%" if metric == "accuracy" else ""
    names = [f"{kind}_{metric}" for kind in ("final", "best", "mean_last10")]
    print(", ".join(f"{name} {factor * summary[name]:{form}}{unit}" for name in names))
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
