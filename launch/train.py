"""Trains one federated run.

    python -m launch.train --config=launch/configs/NAME.py --workdir=DIR [--config.FIELD=VALUE ...]

Run again with the same --workdir it goes on from the last checkpoint. One of several processes of
the same run (README, "Several machines") is also told --distributed, or --coordinator_address,
--num_processes and --process_id.
"""

from semanticfl_jax.config import ExperimentConfig, describe_algorithms

from . import distributed, flags

# What --help prints.
__doc__ = f"{__doc__}\n{describe_algorithms()}\n"


def main(config: ExperimentConfig, workdir: str) -> None:
    """Runs the experiment and prints its accuracies."""
    # Imported late, so that a mistake on the command line is reported before JAX loads.
    from semanticfl_jax.devices import processes
    from semanticfl_jax.simulation import experiment

    distributed.initialize()
    try:
        summary = experiment.run(config, workdir)
    except experiment.InputError as error:
        flags.fail(error)
    except experiment.Stopped as stop:
        flags.stop(stop)
    if not processes.is_main():
        return
    names = ("final_accuracy", "best_accuracy", "mean_last10_accuracy")
    print(", ".join(f"{name} {100 * summary[name]:.2f}%" for name in names))
    if not summary.get("private", True):
        print(summary["note"])


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default="digits", define=distributed.define_flags)
