"""Methods beside one another, each with several seeds, from Python."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.devices.compilation_cache import programs_kept
from semanticfl_jax.errors import DivergedError, Stopped
from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.plots.comparison import comparison_figure
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.report import as_text, write
from semanticfl_jax.reporting.runs import Method, Run, read_bound, with_objects
from semanticfl_jax.reporting.tables import seed_rows
from semanticfl_jax.simulation.compare_plans import Plan, by_method, check_runs, plan_runs
from semanticfl_jax.simulation.experiment import Simulation
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.simulation.setting_up import Given, bound_to
from semanticfl_jax.simulation.together import run_together
from semanticfl_jax.types import Say, silent


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ComparisonResult:
    """What methods come to, over seeds.

    Printed, it is the table that `launch.compare` prints; a notebook shows it as a table.

    Attributes:
      results: by method and seed, without runs that diverged.
      rows: a flat row for each of them, with its figures and its gain over FedAvg;
        `pandas.DataFrame(rows)` works.
    """

    results: Mapping[str, Mapping[int, Result]]
    rows: list[dict[str, Any]]
    _comparison: Comparison

    def __repr__(self) -> str:
        return as_text(self._comparison)

    def _repr_markdown_(self) -> str:
        return repr(self)

    def plot(self, **paper: Any):
        """Return a Matplotlib figure of the methods' mean curves, with bands over seeds.

        Args:
          **paper: size ("screen", "column", "page"), font ("sans", "serif"), font_size in points.
        """
        return comparison_figure(self._comparison, Paper(**paper))

    def write(self, directory: str | os.PathLike, **paper: Any) -> list[Path]:
        """Write tables (Markdown, CSV, LaTeX) and plots, and return their paths.

        Args:
          directory: for comparison.md, comparison.png and more; it is made.
          **paper: as of `plot`, and formats, a tuple of "png", "pdf", "svg".
        """
        return write(self._comparison, local_path(directory, "directory"), Paper(**paper))


def compare(
    methods: Mapping[str, ExperimentConfig | Mapping[str, Any]],
    *,
    seeds: Iterable[int] = (0, 1, 2),
    workdir: str | os.PathLike | None = None,
    vmap_seeds: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Say | None = print,
    **options: Any,
) -> ComparisonResult:
    """Train several methods with several seeds, and compare them.

        fedprox = dataclasses.replace(config, algorithm=sfl.AlgorithmConfig("fedprox"))
        found = sfl.compare({"fedavg": config, "fedprox": fedprox}, seeds=(0, 1))
        print(found)

    Methods may differ in objects, too; what they share is said once:

        sfl.compare({"fedavg": {}, "mine": {"algorithm": mine}}, config=config, model=MyNet())

    The table has mean ± sample standard deviation over seeds of the best, the last and the mean of
    the last 10 evaluations. Where one method is plain FedAvg, gains over it are taken seed by seed.
    Where several are, it is the one named "fedavg". All methods are trained with the first seed,
    then with the next.

    Args:
      methods: by name; each a configuration, or arguments of `Simulation`: config, dataset,
        partition, model, algorithm, init_params, callbacks. A method's go before `options`. Each
        run has callbacks of its own, which a function makes: `callbacks=lambda: [Patience(2)]`.
      seeds: each takes the place of the configurations' `seed`.
      workdir: each run is kept in `workdir`/NAME-seedN and the tables and plots in `workdir`;
        another call with the same methods reads what is finished and resumes what is not. An
        algorithm of your own is known by its name alone: after a change of its code give it
        another, or `overwrite`. None keeps nothing.
      vmap_seeds: whether all seeds of a method are one program, compiled once, for an accelerator
        that one seed leaves half idle; needs a `workdir`, and takes no callbacks.
      overwrite: whether runs that are there are set aside first.
      progress: whether to show a bar for each run.
      say: takes lines for the user; None for none.
      **options: arguments of `Simulation` for all methods, as above.

    Raises:
      ConfigError: for a method that cannot be run. Before any is trained, arguments, data,
        partitions, networks and tasks are checked; what compiling finds, such as a rule that
        returns another form, is found when the method is first trained.
      DivergedError: if every run stopped because it diverged. Others are named below the table.
      SemanticFLError: as `Simulation`.
      Stopped: if a signal stopped a run.
    """
    say = say or silent
    plans = plan_runs(methods, seeds, options)
    directory = None if workdir is None else local_path(workdir, "workdir")
    if vmap_seeds and directory is None:
        raise ConfigError("workdir must be given with vmap_seeds")
    if vmap_seeds and any(plan.arguments["callbacks"] for plan in plans):
        raise ConfigError("callbacks cannot be given with vmap_seeds")
    check_runs(plans, directory, vmap_seeds, overwrite)
    common = {"overwrite": overwrite, "progress": progress, "say": say}
    left_out: list[str] = []
    with programs_kept():
        if vmap_seeds and directory is not None:
            diverged = _train_together(plans, directory, common)
            left_out = [caveats.not_compared(directory / name) for name in diverged]
            plans = [plan for plan in plans if plan.run not in diverged]
            common = {"progress": False, "say": silent}  # what follows reads the runs
        trained = _train(plans, directory, common, left_out)
    return _compared(list(methods), trained, left_out, directory, say)


class _Trained(NamedTuple):
    """A finished run, and what tells its data and objects apart."""

    plan: Plan
    result: Result
    bound: Mapping[str, Any]


def _train_together(plans: Sequence[Plan], directory: Path, common: Mapping[str, Any]) -> list[str]:
    """Train the seeds of each method as one program; return the names of runs that diverged."""
    of_methods, diverged = by_method(plans), []
    for number, (method, members) in enumerate(of_methods.items(), start=1):
        common["say"](f"\n[{number}/{len(of_methods)}] {method}, {len(members)} seeds")
        configs = {plan.run: plan.arguments["config"] for plan in members}
        options = dict(members[0].arguments)
        del options["config"], options["callbacks"]
        diverged += run_together(configs, directory, **options, **common)
    return diverged


def _train(
    plans: Sequence[Plan], directory: Path | None, common: Mapping[str, Any], left_out: list[str]
) -> list[_Trained]:
    """Train runs, or read finished ones; those that diverge are told in `left_out`."""
    say, trained = common["say"], []
    for number, plan in enumerate(plans, start=1):
        say(f"\n[{number}/{len(plans)}] {plan.run}")
        path = None if directory is None else directory / plan.run
        with Simulation(**plan.arguments, workdir=path, **common) as simulation:
            try:
                result = simulation.run()
                trained.append(_Trained(plan, result, _bound_to(plan, path, simulation)))
            except Stopped as error:
                lost = "; without a workdir no run is kept" if directory is None else ""
                raise Stopped(f"{plan.run}: {error}{lost}") from None
            except DivergedError as error:  # the others are still worth training
                say(f"warning: {plan.run} is not compared: {error}")
                left_out.append(caveats.left_out(plan.run, simulation.round))
    return trained


def _bound_to(plan: Plan, path: Path | None, simulation: Simulation) -> dict[str, Any]:
    """Return what tells data and objects of a run apart, as its run.json has it."""
    if path is not None:
        return read_bound(path)
    objects = {key: plan.arguments.get(key) for key in ("model", "algorithm")}
    return bound_to(Given(plan.arguments["config"], **objects), simulation.federation)


def _compared(
    names: Sequence[str],
    trained: Sequence[_Trained],
    left_out: Sequence[str],
    directory: Path | None,
    say: Say,
) -> ComparisonResult:
    """Return the comparison of trained runs, and write it where there is a directory."""
    if not trained:
        raise DivergedError("no run is left: " + "; ".join(left_out))
    runs: dict[str, list[Run]] = {name: [] for name in names}
    results: dict[str, dict[int, Result]] = {}
    for each in trained:
        results.setdefault(each.plan.method, {})[each.plan.seed] = each.result
        runs[each.plan.method].append(_run_of(each))
    methods = [Method(name, tuple(each)) for name, each in runs.items() if each]
    comparison = Comparison.of(methods, [*left_out, *_unlike(trained)])
    if directory is not None:
        for path in write(comparison, directory, Paper()):
            say(f"wrote {path}")
    return ComparisonResult(results, seed_rows(comparison), comparison)


def _unlike(trained: Sequence[_Trained]) -> list[str]:
    """Return sentences, without full stops, on data and partitions that differ between methods."""
    told = []
    for name, argument, words in (
        ("data", "dataset", "were trained on different data"),
        ("partition", "partition", "have different partitions"),
    ):
        found: dict[int, dict[Any, list[str]]] = {}
        for each in trained:
            same = found.setdefault(each.plan.seed, {}).setdefault(each.bound.get(name), [])
            same.append(each.plan.method)
        given = any(each.plan.arguments.get(argument) is not None for each in trained)
        groups = next((each for each in found.values() if len(each) > 1), None)
        if given and groups is not None:
            told.append(f"{' and '.join(members[0] for members in groups.values())} {words}")
    return told


def _run_of(trained: _Trained) -> Run:
    """Return a run as a comparison reads it from a directory."""
    plan, result = trained.plan, trained.result
    config = with_objects(to_dict(plan.arguments["config"]), result.summary, trained.bound)
    algorithm, partition = map(plan.arguments.get, ("algorithm", "partition"))
    if algorithm is not None:  # whatever its name
        config["algorithm"] = {"name": f"{algorithm.name} (your own)"}
    if partition is not None:
        config["partition"] = {"scheme": "given"}
    return Run(result.workdir or Path(plan.run), config, result.summary, result.history)
