r"""Trains several methods with several seeds, one after another, and compares them.

    python -m launch.compare --config=launch/configs/digits.py --workdir=DIR \
        --algorithms=fedavg,semanticfl --seeds=0,1,2 [--config.FIELD=VALUE ...]

A method is an algorithm with settings of its own; these are FedAvg, SemanticFL, and its controls:

    --methods="fedavg; semanticfl; semanticfl guidance.anchors=shuffled; \
        semanticfl guidance.anchors=random_orthogonal"

Algorithms, models and more of your own (docs/start.md) with --plugin=my_module. All algorithms
of the paper's tables, each without and with semantic guidance:

    --algorithms=fedavg,fedprox,scaffold,moon,fedrcl,feddisco,fedcda,feddifrc --guided=both

Every run has its own directory, DIR/METHOD-seedN, and is what launch.train would make of it: run
the command again and finished runs are read, interrupted ones are resumed. With --jobs=N runs are
trained N at a time, each in a process of its own; what they print goes to DIR/logs. With
--vmap_seeds all seeds of a method are one program, compiled once: for an accelerator that one seed
leaves half idle.
"""

from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.config.describe import describe_choices
from semanticfl_jax.config.methods import guide, parse_methods, parse_seeds, plan_methods

from . import flags


def define() -> None:
    """Define the flags beyond those that every command has."""
    flags.define_overwrite()
    absl_flags.DEFINE_list("algorithms", ["fedavg", "semanticfl"], "Algorithms to train.")
    absl_flags.DEFINE_string(
        "methods",
        None,
        "Instead of --algorithms: methods with ; between them, each an algorithm and FIELD=VALUE "
        "settings with spaces between them.",
    )
    absl_flags.DEFINE_enum(
        "guided",
        None,
        ["no", "yes", "both"],
        "Whether each method is guided by the semantic anchors; both: once without and once with. "
        "By default as the configuration and the method say.",
    )
    absl_flags.DEFINE_integer(
        "jobs", 1, "Runs at a time, each on its share of the cores, or of the NVIDIA GPUs."
    )
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train each method with.")
    absl_flags.DEFINE_bool(
        "vmap_seeds", False, "All seeds of a method as one program, on the same devices."
    )


def main(given: flags.Given, workdir: str) -> None:
    """Train what is missing, then print and plot the comparison."""
    values = absl_flags.FLAGS
    methods = parse_methods(values.methods or ";".join(values.algorithms))
    guided, seeds = guide(methods, values.guided), parse_seeds(values.seeds)
    runs = plan_methods(given.values, given.overrides, guided, seeds)

    from semanticfl_jax.reporting.report import compare_finished

    if values.vmap_seeds and values.jobs != 1:
        raise ConfigError(f"--jobs must be 1 with --vmap_seeds, got {values.jobs}")
    if values.vmap_seeds:
        from semanticfl_jax.simulation.together import run_methods_together

        diverged = run_methods_together(runs, Path(workdir), values.overwrite)
    else:
        from semanticfl_jax.simulation.sweep import train

        diverged = train(runs, workdir, values.jobs, values.plugin, values.overwrite)
    print("\n" + compare_finished(list(runs), diverged, Path(workdir)))


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="digits",
        define=define,
        help=describe_choices,
        raw=True,
    )
