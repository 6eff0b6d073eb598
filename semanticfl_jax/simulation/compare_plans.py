"""The runs of a comparison from Python: planned, and checked before any is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reporting.metric import Metric
from semanticfl_jax.simulation import workdir as files
from semanticfl_jax.simulation.arguments import check_kinds
from semanticfl_jax.simulation.callbacks import Callback
from semanticfl_jax.simulation.setting_up import Given, check_without_diffusion
from semanticfl_jax.simulation.together import check_together

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

#: Bytes of a method's name, which with its seed names a directory.
_LONGEST = 200


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run: its method, its seed, and the arguments of its simulation."""

    method: str
    seed: int
    arguments: dict[str, Any]

    @property
    def run(self) -> str:
        """The run's name, and that of its directory."""
        return f"{self.method}-seed{self.seed}"


def plan_runs(
    methods: Mapping[str, Any], seeds: Iterable[int], options: Mapping[str, Any]
) -> list[Plan]:
    """Return the runs, all methods of a seed together.

    Args:
      methods: as `compare` takes them.
      seeds: whole numbers.
      options: arguments of `Simulation` that the methods share.

    Raises:
      ConfigError: for a wrong argument.
    """
    if not isinstance(methods, Mapping) or not methods:
        raise ConfigError(f"methods must be a mapping of one at least, got {methods!r:.200}")
    seeds = _numbers(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be one at least, each once, got {seeds}")
    unknown = [each for each in options if each not in _OF_METHODS]
    if unknown:
        raise ConfigError(
            f"sfl.compare has no argument {unknown[0]}; methods share {', '.join(_OF_METHODS)}"
        )
    arguments = {name: _arguments(name, method, options) for name, method in methods.items()}
    plans = []
    for seed in seeds:
        for name, given in arguments.items():
            try:
                config = dataclasses.replace(given["config"], seed=seed)
            except ConfigError as error:
                raise ConfigError(f"seeds: {error}") from None
            plans.append(Plan(name, seed, {**given, "config": config}))
    for plan in plans:
        plan.arguments["callbacks"] = _callbacks(plan.method, plan.arguments)
    return plans


def _numbers(seeds: Any) -> list[Any]:
    """Return seeds as plain numbers; what is none is left for the configuration to refuse."""
    if not isinstance(seeds, Iterable):
        raise ConfigError(f"seeds must be a sequence of whole numbers, got {seeds!r:.200}")
    found = []
    for seed in seeds:
        try:
            found.append(seed if isinstance(seed, bool) else operator.index(seed))
        except TypeError:
            raise ConfigError(f"seeds must be whole numbers, got {seed!r:.200}") from None
    return found


def check_runs(
    plans: Sequence[Plan], directory: Path | None, vmap_seeds: bool, overwrite: bool
) -> None:
    """Check what can be checked before anything compiles.

    Args:
      plans: the runs.
      directory: that their directories are in; None: they have none.
      vmap_seeds: whether the seeds of a method are one program.
      overwrite: whether runs that are there are set aside.

    Raises:
      SemanticFLError: for runs that cannot be trained, or not be compared.
    """
    first: dict[str, Metric] = {}
    for plan in plans:
        with _named(plan.method):
            if directory is not None and not overwrite:
                files.check(directory / plan.run, plan.arguments["config"])
            # A finished run is read without its data.
            read = directory is not None and (directory / plan.run / files.SUMMARY).exists()
            if plan.method not in first and (overwrite or not read):
                given = {key: plan.arguments[key] for key in plan.arguments if key != "callbacks"}
                first[plan.method] = check_without_diffusion(Given(**given))
    if len(set(first.values())) > 1:
        kinds = ", ".join(f"{metric.name} ({method})" for method, metric in first.items())
        raise ConfigError(f"methods must have one metric, and their tasks have {kinds}")
    if vmap_seeds:
        for method, members in by_method(plans).items():
            with _named(method):
                check_together({plan.run: plan.arguments["config"] for plan in members})


@contextlib.contextmanager
def _named(method: str) -> Iterator[None]:
    """Put the name of a method before what is wrong with it."""
    try:
        yield
    except SemanticFLError as error:
        raise type(error)(f"methods[{method!r}]: {error}") from None


def by_method(plans: Sequence[Plan]) -> dict[str, list[Plan]]:
    """Return the runs of each method."""
    found: dict[str, list[Plan]] = {}
    for plan in plans:
        found.setdefault(plan.method, []).append(plan)
    return found


def _arguments(name: str, method: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a method's simulations; raise `ConfigError` for wrong ones."""
    # It names a directory, in which $NAME would be a variable.
    fits = isinstance(name, str) and Path(name).name == name and name.isprintable()
    if not fits or not name or "$" in name or len(name.encode()) > _LONGEST:
        raise ConfigError(
            f"a method's name must be a text of {_LONGEST} bytes at most, without / and $, got "
            f"{name!r:.300}"
        )
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
    with _named(name):
        check_kinds(given["config"], dataset, model, algorithm, ())
    return given


def _callbacks(name: str, given: Mapping[str, Any]) -> list[Callback]:
    """Return new callbacks for a run of a method."""
    make = given.get("callbacks")
    if make is None:
        return []
    fits = False
    if callable(make) and not isinstance(make, type | Callback):
        with contextlib.suppress(TypeError):
            inspect.signature(make).bind()
            fits = True
    made = make() if fits else None
    if not isinstance(made, list | tuple):
        raise ConfigError(
            f"methods[{name!r}]: callbacks must be a function without arguments that makes a list "
            f"of those of a run, as lambda: [MyCallback()], got {make!r:.200}"
        )
    with _named(name):
        check_kinds(given["config"], None, None, None, made)
    return list(made)
