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

from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags as absl_flags

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.config.describe import describe_choices
from semanticfl_jax.config.methods import parse_methods, parse_seeds, plan_runs, require_effect
from semanticfl_jax.registry import ALGORITHMS

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


def guide(
    methods: dict[str, dict[str, object]], guided: str | None
) -> dict[str, dict[str, object]]:
    """Return methods with and without guidance: `guided` is no, yes, both, or None (as it is).

    SemanticFL is guided anyway, and stays as it is; guided methods are named METHOD-guided.
    """
    if guided is None:
        return methods
    chosen = {}
    for name, settings in methods.items():
        entry = ALGORITHMS.get(str(settings["algorithm.name"]))
        if entry is not None and entry.traits.guided:
            chosen[name] = settings
            continue
        if guided in ("no", "both"):
            chosen[name] = {**settings, "guidance.enabled": False}
        if guided in ("yes", "both"):
            chosen[f"{name}-guided"] = {**settings, "guidance.enabled": True}
    return chosen


def plan(
    given: flags.Given, methods: dict[str, dict[str, object]], seeds: list[str]
) -> dict[str, ExperimentConfig]:
    """Return the runs to make, {name: configuration}.

    Settings of the command line go to the methods in which they have an effect: `algorithm.moon.mu`
    to MOON.

    Raises:
      ConfigError: for a run that is not valid, or a setting without an effect in any of them.
    """
    if not methods:
        raise ConfigError("--algorithms, or --methods, must name one at least")
    runs = plan_runs(given.values, given.overrides, methods, parse_seeds(seeds))
    require_effect(given.values, given.overrides, list(methods.values()))
    return runs


def main(given: flags.Given, workdir: str) -> None:
    """Train what is missing, then print and plot the comparison."""
    values = absl_flags.FLAGS
    methods = parse_methods(values.methods or ";".join(values.algorithms))
    runs = plan(given, guide(methods, values.guided), values.seeds)

    from semanticfl_jax.reporting.report import compare

    if values.vmap_seeds and values.jobs != 1:
        raise ConfigError(f"--jobs must be 1 with --vmap_seeds, got {values.jobs}")
    if values.vmap_seeds:
        diverged = _seeds_together(runs, workdir, values.overwrite)
    else:
        diverged = train(runs, workdir, values.jobs, values.plugin, values.overwrite)
    finished = [Path(workdir) / name for name in runs if name not in diverged]
    print("\n" + compare(finished, out=workdir))


def train(
    runs: Mapping[str, ExperimentConfig],
    workdir: str,
    jobs: int = 1,
    plugins: Sequence[str] = (),
    overwrite: bool = False,
) -> list[str]:
    """Train runs, or resume them; finished ones are left as they are.

    Args:
      runs: configurations by name; NAME is trained in the directory `workdir`/NAME.
      workdir: of all.
      jobs: runs at a time; one is trained in this process.
      plugins: modules that other processes load.
      overwrite: whether a run that is there is set aside, and begun anew.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      Stopped: if a signal stopped them.
    """
    if jobs == 1:
        return _one_by_one(runs, workdir, overwrite)
    from semanticfl_jax.simulation.sweep import run_side_by_side

    return run_side_by_side(runs, workdir, jobs, plugins=plugins, overwrite=overwrite)


def _one_by_one(runs: Mapping[str, ExperimentConfig], workdir: str, overwrite: bool) -> list[str]:
    """Train the runs; return the names of those that diverged, which are not compared."""
    from semanticfl_jax.api import run
    from semanticfl_jax.errors import DivergedError

    diverged = []
    for number, (name, config) in enumerate(runs.items(), start=1):
        print(f"\n[{number}/{len(runs)}] {name}")
        try:
            run(config, Path(workdir) / name, overwrite=overwrite)
        except DivergedError as error:  # the others are still worth training
            print(f"warning: {name} is not compared: {error}")
            diverged.append(name)
    return diverged


def _seeds_together(
    runs: Mapping[str, ExperimentConfig], workdir: str, overwrite: bool
) -> list[str]:
    """Train the seeds of each method as one program; return the names of those that diverged."""
    from semanticfl_jax.simulation.together import check_together, run_together

    methods: dict[str, dict[str, ExperimentConfig]] = {}
    for name, config in runs.items():
        methods.setdefault(name.rpartition("-seed")[0], {})[name] = config
    for configs in methods.values():
        check_together(configs)
    diverged = []
    for number, (method, configs) in enumerate(methods.items(), start=1):
        print(f"\n[{number}/{len(methods)}] {method}, {len(configs)} seeds")
        diverged += run_together(configs, Path(workdir), overwrite=overwrite)
    return diverged


if __name__ == "__main__":
    flags.run(
        main,
        ExperimentConfig,
        default="digits",
        define=define,
        help=describe_choices,
        raw=True,
    )
