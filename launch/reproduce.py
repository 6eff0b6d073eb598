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
from semanticfl_jax.reproduction import training
from semanticfl_jax.reproduction.plan import Plan, describe, make_plan
from semanticfl_jax.reproduction.tables import Table, Tables

from . import flags


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


def main(given: flags.Given, workdir: str) -> None:
    """Plan, train what is missing, and write the table."""
    from semanticfl_jax.reproduction.missing import find_missing
    from semanticfl_jax.reproduction.record import Record

    values, directory = absl_flags.FLAGS, Path(workdir)
    table = find_table(values)
    runs = training.runs_of(table, given.overrides, parse_seeds(values.seeds), directory)
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
    training.check(runs, directory)
    if left and not missing:
        training.measure(runs, directory, values.jobs, values.plugin)
    print(describe(plan(missing)))
    if values.dry_run:
        return
    command = shlex.join(["python", "-m", "launch.reproduce", *sys.argv[1:]])
    try:
        if left:
            with record.part(command):
                training.train(left, directory, values.jobs, values.plugin)
    finally:
        from semanticfl_jax.reproduction.results import write_results

        print("\n" + write_results(plan([]), record))


if __name__ == "__main__":
    flags.run(main, ExperimentConfig, default=None, define=define, help=describe_tables, raw=True)
