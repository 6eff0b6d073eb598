"""Methods beside one another, each with several seeds, from Python."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.devices.compilation_cache import programs_kept
from semanticfl_jax.errors import DivergedError
from semanticfl_jax.paths import local_path
from semanticfl_jax.reporting import caveats
from semanticfl_jax.reporting.comparison import Comparison
from semanticfl_jax.reporting.plots.comparison import comparison_figure
from semanticfl_jax.reporting.plots.paper import Paper
from semanticfl_jax.reporting.report import as_text, write
from semanticfl_jax.reporting.runs import Method, Run, bound_to, with_objects
from semanticfl_jax.reporting.tables import seed_rows
from semanticfl_jax.simulation.arguments import check_kinds
from semanticfl_jax.simulation.callbacks import Callback
from semanticfl_jax.simulation.experiment import Simulation
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.simulation.together import run_together
from semanticfl_jax.types import Say, silent

#: Arguments of `Simulation` that a method may have of its own.
_OF_METHODS = (
    "config",
    "dataset",
    "partition",
    "model",
    "algorithm",
    "init_params",
    "callbacks",
)


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
    All methods are trained with the first seed, then with the next.

    Args:
      methods: by name; each a configuration, or arguments of `Simulation`: config, dataset,
        partition, model, algorithm, init_params, callbacks. A method's go before `options`. Each
        run has callbacks of its own, which a function makes: `callbacks=lambda: [Patience(2)]`.
      seeds: each takes the place of the configurations' `seed`.
      workdir: each run is kept in `workdir`/NAME-seedN and the tables and plots in `workdir`;
        another call with the same methods reads what is finished and resumes what is not. None
        keeps nothing.
      vmap_seeds: whether all seeds of a method are one program, compiled once, for an accelerator
        that one seed leaves half idle; needs a `workdir`, and takes no callbacks.
      overwrite: whether runs that are there are set aside first.
      progress: whether to show a bar for each run.
      say: takes lines for the user; None for none.
      **options: arguments of `Simulation` for all methods, as above.

    Raises:
      ConfigError: for a method that cannot be run, before any is trained.
      DivergedError: if every run stopped because it diverged. Others are named below the table.
      SemanticFLError: as `Simulation`.
      Stopped: if a signal stopped a run.
    """
    say = say or silent
    plans = _plans(methods, tuple(seeds), options)
    directory = None if workdir is None else local_path(workdir, "workdir")
    if vmap_seeds and directory is None:
        raise ConfigError("workdir must be given with vmap_seeds")
    if vmap_seeds and any(_callbacks_of(plan) for plan in plans):
        raise ConfigError("callbacks cannot be given with vmap_seeds")
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


@dataclasses.dataclass(frozen=True)
class _Plan:
    """One run: its method, its seed, and the arguments of its simulation."""

    method: str
    seed: int
    arguments: Mapping[str, Any]

    @property
    def run(self) -> str:
        """The run's name, and that of its directory."""
        return f"{self.method}-seed{self.seed}"


def _plans(
    methods: Mapping[str, Any], seeds: Sequence[int], options: Mapping[str, Any]
) -> list[_Plan]:
    """Return the runs, all methods of a seed together; raise `ConfigError` for a wrong argument."""
    if not isinstance(methods, Mapping) or not methods:
        raise ConfigError(f"methods must be a mapping of one at least, got {methods!r:.200}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be one at least, each once, got {list(seeds)}")
    arguments = {name: _arguments(name, method, options) for name, method in methods.items()}
    plans = []
    for seed in seeds:
        for name, given in arguments.items():
            try:
                config = dataclasses.replace(given["config"], seed=seed)
            except ConfigError as error:
                raise ConfigError(f"seeds: {error}") from None
            plans.append(_Plan(name, seed, {**given, "config": config}))
    return plans


def _arguments(name: str, method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a method's simulations; raise `ConfigError` for wrong ones."""
    # It names a directory.
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ConfigError(f"a method's name must be a text without /, got {name!r}")
    own = {"config": method} if isinstance(method, ExperimentConfig) else method
    if not isinstance(own, Mapping):
        raise ConfigError(
            f"methods[{name!r}] must be an ExperimentConfig or a mapping of "
            f"{', '.join(_OF_METHODS)}, got {method!r:.200}"
        )
    given = {**options, **own}
    unknown = [each for each in given if each not in _OF_METHODS]
    if unknown:
        raise ConfigError(
            f"methods[{name!r}]: there is no argument {unknown[0]}; there are "
            f"{', '.join(_OF_METHODS)}"
        )
    if "config" not in given:
        raise ConfigError(f"methods[{name!r}] has no config; give it one, or config=... to all")
    dataset, model, algorithm = map(given.get, ("dataset", "model", "algorithm"))
    make = given.get("callbacks", tuple)
    if not callable(make) or isinstance(make, Callback):
        raise ConfigError(
            f"methods[{name!r}]: callbacks must be a function that makes those of a run, as "
            f"lambda: [MyCallback()], got {make!r:.200}"
        )
    try:
        check_kinds(given["config"], dataset, model, algorithm, make())
    except ConfigError as error:
        raise ConfigError(f"methods[{name!r}]: {error}") from None
    return given


def _callbacks_of(plan: _Plan) -> Sequence[Callback]:
    """Return new callbacks for a run."""
    callbacks: Sequence[Callback] = plan.arguments.get("callbacks", tuple)()
    return callbacks


def _train_together(
    plans: Sequence[_Plan], directory: Path, common: Mapping[str, Any]
) -> list[str]:
    """Train the seeds of each method as one program; return the names of runs that diverged."""
    of_methods: dict[str, list[_Plan]] = {}
    diverged = []
    for plan in plans:
        of_methods.setdefault(plan.method, []).append(plan)
    for number, (method, members) in enumerate(of_methods.items(), start=1):
        common["say"](f"\n[{number}/{len(of_methods)}] {method}, {len(members)} seeds")
        configs = {plan.run: plan.arguments["config"] for plan in members}
        options = dict(members[0].arguments)
        for own in ("config", "callbacks"):
            options.pop(own, None)
        diverged += run_together(configs, directory, **options, **common)
    return diverged


def _train(
    plans: Sequence[_Plan], directory: Path | None, common: Mapping[str, Any], left_out: list[str]
) -> list[tuple[_Plan, Result]]:
    """Train runs, or read finished ones; those that diverge are told in `left_out`."""
    say, trained = common["say"], []
    for number, plan in enumerate(plans, start=1):
        say(f"\n[{number}/{len(plans)}] {plan.run}")
        path = None if directory is None else directory / plan.run
        given = {**plan.arguments, "callbacks": _callbacks_of(plan)}
        with Simulation(**given, workdir=path, **common) as simulation:
            try:
                trained.append((plan, simulation.run()))
            except DivergedError as error:  # the others are still worth training
                say(f"warning: {plan.run} is not compared: {error}")
                left_out.append(caveats.left_out(plan.run, simulation.round))
    return trained


def _compared(
    names: Sequence[str],
    trained: Sequence[tuple[_Plan, Result]],
    left_out: Sequence[str],
    directory: Path | None,
    say: Say,
) -> ComparisonResult:
    """Return the comparison of trained runs, and write it where there is a directory."""
    if not trained:
        raise DivergedError("no run is left: " + "; ".join(left_out))
    runs: dict[str, list[Run]] = {name: [] for name in names}
    results: dict[str, dict[int, Result]] = {}
    for plan, result in trained:
        results.setdefault(plan.method, {})[plan.seed] = result
        runs[plan.method].append(_run_of(plan, result))
    methods = [Method(name, tuple(each)) for name, each in runs.items() if each]
    comparison = Comparison.of(methods, left_out)
    if directory is not None:
        for path in write(comparison, directory, Paper()):
            say(f"wrote {path}")
    return ComparisonResult(results, seed_rows(comparison), comparison)


def _run_of(plan: _Plan, result: Result) -> Run:
    """Return a run as a comparison reads it from a directory."""
    bound = {} if result.workdir is None else bound_to(result.workdir)
    config = with_objects(to_dict(plan.arguments["config"]), result.summary, bound)
    return Run(result.workdir or Path(plan.run), config, result.summary, result.history)
