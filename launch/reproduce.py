r"""Reproduces a table of the paper, or an ablation: plans it, trains what is missing, writes it.

    python -m launch.reproduce --table=cifar10_nid1 --workdir=DIR --config.data_dir=DATA \
        [--scale=cpu|gpu|full] [--seeds=0,1,2] [--jobs=N] [--dry_run]

--dry_run prints the plan alone, in a second: runs, hours, disk, and what is missing. With --measure
a short run is made first, which tells how long the others take. Run the same command again and
finished runs are read, interrupted ones are resumed, and the table is written anew: table.md and
table.csv in DIR with spread, gain, published number and difference, and in a folder a column plots
and all seeds.

--methods and --columns choose a part of a table, or add what others have. Settings of all runs are
--config.FIELD=VALUE, such as --config.guidance.checkpoint=DIR.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from semanticfl_jax.config import ExperimentConfig, to_dict
from semanticfl_jax.config.methods import parse_seeds
from semanticfl_jax.errors import ConfigError, SemanticFLError
from semanticfl_jax.paths import local_path
from semanticfl_jax.reproduction.plan import MEASUREMENT, Plan, describe, make_plan, measurement_of
from semanticfl_jax.reproduction.tables import Run, Table, Tables

from . import compare, flags

#: Where students are kept, for all runs of a table.
STUDENTS = "students"


def define() -> None:
    """Define the command's own flags."""
    absl_flags.DEFINE_string("table", None, "Table to reproduce; --help lists them.")
    absl_flags.DEFINE_string("scale", "cpu", "Scale of the protocol; --help lists them.")
    absl_flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train each method with.")
    absl_flags.DEFINE_list("methods", [], "In place of the table's own methods.")
    absl_flags.DEFINE_list("columns", [], "In place of the table's own columns.")
    absl_flags.DEFINE_integer(
        "jobs", 1, "Runs at a time, each on its share of the cores, or of the NVIDIA GPUs."
    )
    absl_flags.DEFINE_bool("dry_run", False, "Print the plan, and train nothing.")
    absl_flags.DEFINE_bool("measure", False, "With --dry_run: measure first how long runs take.")
    absl_flags.DEFINE_string("tables", None, "File of tables of your own; by default the papers'.")


def describe_tables() -> str:
    """Return the tables and the scales of the package."""
    return Tables().describe()


def find_table(values: Any) -> Table:
    """Return the table that flags name; raise `ConfigError` for one that there is not."""
    tables = Tables(None if values.tables is None else local_path(values.tables, "--tables"))
    if values.table is None:
        raise ConfigError(f"--table=NAME is missing. Known {tables.describe()}")
    return tables.table(
        values.table, values.scale, _config, columns=values.columns, methods=values.methods
    )


def _config(name: str) -> Mapping[str, Any]:
    return to_dict(flags.installed_config(name))


def runs_of(table: Table, given: flags.Given, seeds: list[str], directory: Path) -> list[Run]:
    """Return the runs of a table, which share their students."""
    shared = {"guidance.student.directory": str(directory / STUDENTS)}
    return table.runs(parse_seeds(seeds), given.overrides, shared)


def main(given: flags.Given, workdir: str) -> None:
    """Plan, train what is missing, and write the table."""
    from semanticfl_jax.reproduction.missing import find_missing
    from semanticfl_jax.reproduction.record import Record

    values, directory = absl_flags.FLAGS, Path(workdir)
    table = find_table(values)
    runs = runs_of(table, given, values.seeds, directory)
    record = Record(directory, table.name, table.scale)
    configs = [run.config for run in runs]

    def plan(missing: list[str]) -> Plan:
        return make_plan(
            table, runs, directory, values.jobs, asked=given.overrides, missing=missing
        )

    now = plan(find_missing(configs))
    if values.dry_run and not values.measure:
        print(describe(now))
        return
    left = [each.run for each in now.runs if not each.finished]
    missing = find_missing([run.config for run in left], download=not values.dry_run)
    if missing and not values.dry_run:
        lines = "".join(f"\n  {line}" for line in missing)
        raise SemanticFLError(f"--table={table.name} cannot be run; missing:{lines}")
    _check(runs, directory)
    if left and not missing:
        _measure(runs, directory, values.jobs, values.plugin)
    print(describe(plan(missing)))
    if values.dry_run:
        return
    command = shlex.join(["python", "-m", "launch.reproduce", *sys.argv[1:]])
    try:
        if left:
            with record.part(command):
                _train(left, workdir, values.jobs, values.plugin)
    finally:
        from semanticfl_jax.reproduction.results import write_results

        print("\n" + write_results(plan([]), record))


def _check(runs: list[Run], directory: Path) -> None:
    """Raise `ConfigError` now for a directory that holds another run, not hours later."""
    from semanticfl_jax.simulation import workdir

    for run in runs:
        workdir.check(directory / run.name, run.config)


def _measure(runs: list[Run], directory: Path, jobs: int, plugins: list[str]) -> None:
    """Make the short run that tells how long others take, on the share of the machine of one."""
    from semanticfl_jax.devices.machine import BUSY, busy_share
    from semanticfl_jax.simulation import workdir
    from semanticfl_jax.simulation.sweep import run_side_by_side

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
        run_side_by_side({name: config}, directory, jobs, plugins=plugins, overwrite=again)


def _train(runs: list[Run], workdir: str, jobs: int, plugins: list[str]) -> None:
    """Train runs; those that make a student that others share go before these."""
    first, rest = with_new_students(runs)
    for part in (first, rest) if jobs > 1 and first else (runs,):
        compare.train({run.name: run.config for run in part}, workdir, jobs, plugins)


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


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default=None, define=define, help=describe_tables, raw=True)
