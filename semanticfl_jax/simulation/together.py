"""Several seeds of one run, trained as one program (`seeds`).

Every seed keeps a directory, metrics and checkpoints of its own, as if it ran alone, and its
numbers are those of a run alone up to rounding: products of several seeds are computed side by
side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.errors import DivergedError, SemanticFLError, Stopped
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.simulation.experiment import Simulation
from semanticfl_jax.simulation.interrupt import stop_between_rounds
from semanticfl_jax.simulation.pipeline import FinishedRound
from semanticfl_jax.simulation.seeds import Seeds
from semanticfl_jax.types import Say, silent


def check_together(configs: Mapping[str, ExperimentConfig]) -> None:
    """Raise `ConfigError` for runs that cannot be one program, naming the field.

    Args:
      configs: by name, of one method.
    """
    several = [to_dict(config) | {"seed": None} for config in configs.values()]
    if any(other != several[0] for other in several[1:]):
        raise ConfigError(f"runs must differ in the seed alone: {', '.join(configs)}")
    config = next(iter(configs.values()))
    for field, value, allowed in (
        ("runtime.data_memory", config.runtime.data_memory, "device"),
        ("runtime.client_state_memory", config.runtime.client_state_memory, "device"),
        ("runtime.rounds_per_dispatch", config.runtime.rounds_per_dispatch, ("auto", 1)),
        ("client_test.share", config.client_test.share, 0),
        ("feature_skew.corruptions", config.feature_skew.corruptions, ()),
        ("attack.name", config.attack.name, "none"),
        ("privacy.name", config.privacy.name, "none"),
    ):
        if value != allowed and value not in (allowed if isinstance(allowed, tuple) else ()):
            shown = {(): "empty", ("auto", 1): '"auto" or 1'}.get(allowed, allowed)
            raise ConfigError(
                f"{field} must be {shown} where seeds are one program (--vmap_seeds), got {value!r}"
            )


def run_together(
    configs: Mapping[str, ExperimentConfig],
    workdir: Path,
    *,
    overwrite: bool = False,
    say: Say | None = print,
    progress: bool = True,
    **options: Any,
) -> list[str]:
    """Train runs that differ in the seed alone as one program; finished ones are left as they are.

    Args:
      configs: by name; NAME is trained in the directory `workdir`/NAME.
      workdir: of all of them.
      overwrite: whether runs that are there are set aside.
      say: takes lines for the user; None for none.
      progress: whether to show a bar.
      **options: as of `Simulation`: dataset, model, algorithm, callbacks.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      SemanticFLError: for runs that cannot be one program.
      Stopped: if a signal stopped them after some round.
    """
    check_together(configs)
    say = say or silent
    seeds = Seeds(say)
    members: dict[str, Member] = {}
    try:
        for name, config in configs.items():
            member = Member(
                config,
                seeds,
                workdir=workdir / name,
                overwrite=overwrite,
                say=say,
                progress=progress and not members,  # one bar for all
                **options,
            )
            if member.engine is not None:
                members[name] = member
                options.setdefault("dataset", member.federation.clean)
        return _train(seeds, members, say) if members else []
    finally:
        for member in members.values():
            member.close()


def run_methods_together(
    runs: Mapping[str, ExperimentConfig], workdir: Path, overwrite: bool = False
) -> list[str]:
    """Train the seeds of each method as one program, one method after another.

    Args:
      runs: by name, METHOD-seedN; NAME is trained in the directory `workdir`/NAME.
      workdir: of all of them.
      overwrite: whether runs that are there are set aside.

    Returns:
      The names of the runs that stopped because they diverged.

    Raises:
      ConfigError: for seeds that cannot be one program.
      Stopped: if a signal stopped them.
    """
    methods: dict[str, dict[str, ExperimentConfig]] = {}
    for name, config in runs.items():
        methods.setdefault(name.rpartition("-seed")[0], {})[name] = config
    for configs in methods.values():
        check_together(configs)
    diverged = []
    for number, (method, configs) in enumerate(methods.items(), start=1):
        print(f"\n[{number}/{len(methods)}] {method}, {len(configs)} seeds")
        diverged += run_together(configs, workdir, overwrite=overwrite)
    return diverged


class Member(Simulation):
    """A run whose rounds are computed together with those of other seeds."""

    def __init__(self, config: ExperimentConfig, seeds: Seeds, **options: Any):
        self._seeds = seeds
        super().__init__(config, **options)

    def _prepare(self) -> Engine:
        return self._seeds.add(self.parts, self._mesh)

    def stop(self) -> None:
        """Raise `SemanticFLError`: the others' rounds are in the same program."""
        raise SemanticFLError("a run that is trained together with other seeds cannot be stopped")

    def _save(self) -> None:
        """Save nothing on leaving: all seeds are saved after the same rounds, as they are due."""

    def steps(self, rounds: Iterator[FinishedRound]) -> Iterator[object]:
        """Record rounds as they come."""
        return self._take(rounds)


def _train(seeds: Seeds, members: Mapping[str, Member], say: Say) -> list[str]:
    """Train runs that are in one program to their ends; return the names of those that diverged."""
    done = {member.round for member in members.values()}
    if len(done) > 1:
        raise SemanticFLError(
            f"the runs were stopped after different rounds ({sorted(done)}): resume them one "
            "by one, without --vmap_seeds"
        )
    seeds.compile()
    diverged: list[str] = []
    with stop_between_rounds(say) as asked_to_stop:
        total = next(iter(members.values())).rounds
        rounds = seeds.rounds(total, asked_to_stop)
        each = iter(itertools.tee(rounds, len(members)))
        steps = {
            name: member.steps(_of_seed(next(each), index))
            for index, (name, member) in enumerate(members.items())
        }
        del each  # a run that diverges must not keep the others' rounds
        while steps:
            for name in list(steps):
                try:
                    if next(steps[name], None) is None:
                        del steps[name]
                except DivergedError as error:  # the others are still worth training
                    say(f"warning: {name} is not compared: {error}")
                    diverged.append(name)
                    del steps[name]
    left = [member for name, member in members.items() if name not in diverged]
    if any(member.round < member.rounds for member in left):
        number = left[0].round
        raise Stopped(f"stopped after round {number}; run the same command to go on")
    return diverged


def _of_seed(rounds: Iterator[list[FinishedRound]], index: int) -> Iterator[FinishedRound]:
    return (found[index] for found in rounds)
