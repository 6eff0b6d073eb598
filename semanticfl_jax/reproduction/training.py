"""Training what is missing of a table: a short run that is timed, students before their users.

What imports JAX is imported where it is used: a plan needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.reproduction.plan import MEASUREMENT, measurement_of
from semanticfl_jax.reproduction.tables import Run, Table

#: Where students are kept, for all runs of a table.
STUDENTS = "students"


def runs_of(
    table: Table, overrides: Mapping[str, Any], seeds: Sequence[int], directory: Path
) -> list[Run]:
    """Return the runs of a table, which share their students.

    Args:
      table: to reproduce.
      overrides: settings of all runs, by dotted path.
      seeds: of each method.
      directory: of the table.
    """
    shared = {"guidance.student.directory": str(directory / STUDENTS)}
    return table.runs(seeds, overrides, shared)


def check(runs: Sequence[Run], directory: Path) -> None:
    """Raise `ConfigError` now for a directory that holds another run, not hours later."""
    from semanticfl_jax.simulation import workdir

    for run in runs:
        workdir.check(directory / run.name, run.config)


def measure(runs: Sequence[Run], directory: Path, jobs: int, plugins: Sequence[str]) -> None:
    """Make the short run that tells how long others take, on the share of the machine of one."""
    from semanticfl_jax.devices.machine import BUSY, busy_share
    from semanticfl_jax.simulation import sweep, workdir

    name = MEASUREMENT.format(jobs=jobs)
    plain = next((run for run in runs if run.method == "fedavg"), runs[0])
    config = measurement_of(plain.config)
    try:
        workdir.check(directory / name, config)
        again = False
    except ConfigError:  # of other settings
        again = True
    if again or not (directory / name / workdir.SUMMARY).exists():
        print("measuring how long runs take ...")
        share = busy_share(1.0)
        if share > BUSY:
            print(f"warning: others use {share:.0%} of the cores; the hours will be too many")
        sweep.run_side_by_side({name: config}, directory, jobs, plugins=plugins, overwrite=again)


def train(runs: list[Run], directory: Path, jobs: int, plugins: Sequence[str]) -> None:
    """Train runs; those that make a student that others share go before these."""
    from semanticfl_jax.simulation import sweep

    first, rest = with_new_students(runs)
    for part in (first, rest) if jobs > 1 and first else (runs,):
        sweep.train({run.name: run.config for run in part}, directory, jobs, plugins)


def with_new_students(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Split runs into the first with each student, and all others.

    Two processes that make the same student would write the same files.
    """
    first: list[Run] = []
    rest: list[Run] = []
    seen = []
    for run in runs:
        key = _student(run.config)
        (first if key is not None and key not in seen else rest).append(run)
        seen.append(key)
    return first, rest


def _student(config: ExperimentConfig) -> dict[str, Any] | None:
    """Return what decides the student of a run, and possibly more; None if it has none."""
    if not config.guidance.uses_student:
        return None
    guidance = to_dict(config.guidance)
    student = guidance["student"]
    of_clients = ("weight", "targets", "init", "control")
    decisive = {name: value for name, value in student.items() if name not in of_clients}
    names = ("checkpoint", "revision", "timestep", "resolution", "dtype")
    return {
        **decisive,
        **{name: guidance[name] for name in names},
        "teacher": config.guidance.student.teacher,
        "seed": config.seed if config.guidance.student.images == "public" else None,
    }
