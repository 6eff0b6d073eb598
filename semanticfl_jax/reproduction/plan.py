"""What a table still takes: runs, hours, disk, and what is missing for it. JAX is not needed."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.config.methods import Settings
from semanticfl_jax.planning.images import KNOWN
from semanticfl_jax.reporting.watch import look
from semanticfl_jax.reproduction.tables import Run, Table

#: Where a measurement is kept in a table's directory, by how many runs go at a time.
MEASUREMENT = "measurement-{jobs}"
#: Batches of a client, and rounds, of a measurement.
_BATCHES, _ROUNDS = 4, 3
#: What testing an image takes beside training with it: one pass of three. Our estimate.
_TEST = 1 / 3


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast runs are, as one that was finished here tells.

    Attributes:
      images_per_second: of training, of one run.
      compile_seconds: of one run.
      run_bytes: that its directory takes.
      model_bytes: that its model takes.
    """

    images_per_second: float
    compile_seconds: float
    run_bytes: float
    model_bytes: float


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run of the table, and how far it is.

    Attributes:
      run: what it is.
      done: rounds, of `run.config.rounds`.
      finished: whether nothing is left to do.
    """

    run: Run
    done: int
    finished: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a table still takes.

    Attributes:
      table: that is planned.
      runs: all of them.
      speeds: by method, of runs that are finished; under None what was measured beforehand.
      jobs: runs at a time.
      directory: of the table.
      asked: settings of the user's, beyond the protocol.
      missing: what the runs need and this machine lacks, in words.
    """

    table: Table
    runs: tuple[Planned, ...]
    speeds: dict[str | None, Speed]
    jobs: int
    directory: Path
    asked: Settings
    missing: tuple[str, ...]

    @property
    def protocol(self) -> str:
        """What is run, in words, with what the user changed of it."""
        places = ("data_dir", "runtime", "checkpoint_every", "download", "unreadable")
        own = [
            f"{name}={value}"
            for name, value in self.asked.items()
            if name.split(".")[0] not in places and not name.endswith(("_dir", ".directory"))
        ]
        return self.table.protocol + (f"; changed: {', '.join(own)}" if own else "")

    def finished_paths(self, column: str) -> list[Path]:
        """Return the directories of a column's finished runs."""
        mine = [each for each in self.runs if each.run.column == column and each.finished]
        return [self.directory / each.run.name for each in mine]

    def seconds(self, planned: Planned, whole: bool = False) -> float | None:
        """Return the estimated seconds that a run still takes; None: nothing is known.

        The diffusion model's runs over images, at the beginning, are not in it.

        Args:
          planned: one of `runs`.
          whole: of the whole run, whatever is done.
        """
        config, speed = planned.run.config, self._speed(planned.run)
        if planned.finished and not whole:
            return 0.0
        if speed is None or config.dataset not in KNOWN:
            return None
        left = 1.0 if whole else 1 - planned.done / config.rounds
        images = images_of_a_run(config) / speed.images_per_second
        if planned.run.method not in self.speeds:
            images *= self.table.costs.get(planned.run.method, 1.0)
        return speed.compile_seconds + left * images

    def bytes(self, planned: Planned) -> float | None:
        """Return the estimated bytes of a run's directory; None: nothing is known."""
        speed, method = self._speed(planned.run), planned.run.method
        if speed is None or method in self.speeds:
            return None if speed is None else speed.run_bytes
        kept = self.table.kept.get(method, 0) * planned.run.config.num_clients
        return speed.run_bytes + 2 * kept * speed.model_bytes  # two checkpoints

    def _speed(self, run: Run) -> Speed | None:
        return self.speeds.get(run.method, self.speeds.get(None))

    def hours(self) -> float | None:
        """Return the estimated hours for all that is left, `jobs` at a time; None: not known."""
        each = [self.seconds(planned) for planned in self.runs]
        known = [seconds for seconds in each if seconds is not None]
        return math.fsum(known) / 3600 / self.jobs if len(known) == len(each) else None


def make_plan(
    table: Table,
    runs: Sequence[Run],
    directory: Path,
    jobs: int = 1,
    *,
    asked: Settings | None = None,
    missing: Sequence[str] = (),
) -> Plan:
    """Return the plan of runs, as far as the table's directory says that they are.

    Args:
      table: whose runs they are.
      runs: of the table.
      directory: of the table.
      jobs: runs at a time.
      asked: settings of the user's.
      missing: what the runs need and this machine lacks.
    """
    planned, found = [], {}
    for run in runs:
        path, done, finished = directory / run.name, 0, False
        if (path / "config.json").is_file():
            progress = look(path)
            done = progress.round
            finished = progress.state == "finished" and done >= run.config.rounds
        planned.append(Planned(run, done, finished))
        if finished:
            found.setdefault(run.method, []).append(speed_of(path))
    speeds: dict[str | None, Speed] = {m: each for m, f in found.items() if (each := _mean(f))}
    measured = speed_of(directory / MEASUREMENT.format(jobs=jobs))
    if measured is not None:
        speeds[None] = measured
    elif speeds:
        # What another method took is a better guess than none.
        speeds[None] = speeds.get("fedavg", next(iter(speeds.values())))
    return Plan(table, tuple(planned), speeds, jobs, directory, asked or {}, tuple(missing))


def images_of_a_run(config: ExperimentConfig) -> float:
    """Return the training images of a run, those of its tests counted as far as they take time."""
    images = KNOWN[config.dataset]
    train = min(config.train_limit or images.train, images.train)
    share = min(1.0, config.clients_per_round / config.num_clients)
    tests = math.ceil(config.rounds / config.eval_every) * images.test * _TEST
    return config.rounds * config.local_epochs * share * train + tests


def measurement_of(config: ExperimentConfig) -> ExperimentConfig:
    """Return a short run that tells how fast a long one is: few images, and one test at its end."""
    limit = config.num_clients * config.batch_size * _BATCHES
    return dataclasses.replace(
        config,
        train_limit=min(config.train_limit or limit, limit),
        rounds=_ROUNDS,
        local_epochs=1,
        eval_every=_ROUNDS,
    )


def speed_of(path: Path) -> Speed | None:
    """Return what a finished run tells of its speed; None without one."""
    try:
        summary: dict[str, Any] = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        rate, compiling = summary["images_per_second"], summary["compile_seconds"]
    except (OSError, ValueError, KeyError):
        return None
    if not rate:
        return None
    size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    model = path / "model.safetensors"
    return Speed(rate, compiling or 0.0, size, model.stat().st_size if model.exists() else 0)


def _mean(found: Sequence[Speed | None]) -> Speed | None:
    known = [dataclasses.astuple(each) for each in found if each is not None]
    return Speed(*map(statistics.fmean, zip(*known, strict=True))) if known else None


def describe(plan: Plan) -> str:
    """Return a plan in words and as a table of its methods."""
    table, runs = plan.table, plan.runs
    finished = sum(each.finished for each in runs)
    begun = sum(each.done > 0 and not each.finished for each in runs)
    seeds = list(dict.fromkeys(each.run.seed for each in runs))
    hours = plan.hours()
    lines = [
        f"{table.name} at scale {table.scale}: {table.about}",
        f"  protocol  {plan.protocol}",
        f"  columns   {', '.join(table.columns)}",
        f"  runs      {len(runs)}: {_counted(table.methods, 'method')}, "
        f"{_counted(table.columns, 'column')}, seeds {', '.join(map(str, seeds))}; "
        f"{finished} finished, {begun} begun",
        f"  hours     {_hours(plan, hours)}",
        f"  disk      {_disk(plan)}",
        *(f"  missing   {line}" for line in plan.missing),
        *([] if plan.missing else ["  missing   nothing"]),
        "",
        *_methods(plan),
    ]
    return "\n".join(lines)


def _counted(those: Any, word: str) -> str:
    return f"{len(those)} {word}{'s' * (len(those) != 1)}"


def _hours(plan: Plan, hours: float | None) -> str:
    if hours is not None:
        by = "what finished runs took" if set(plan.speeds) - {None} else "a short measurement"
        at_a_time = f", {plan.jobs} runs at a time" if plan.jobs > 1 else ""
        return f"about {hours:.1f} are left{at_a_time}, by {by}; anchors and students are not in it"
    config = plan.runs[0].run.config
    if config.dataset not in KNOWN:
        return f"not estimated: the size of {config.dataset} is not known"
    images = sum(
        images_of_a_run(each.run.config)
        * plan.table.costs.get(each.run.method, 1.0)
        * (1 - each.done / each.run.config.rounds)
        for each in plan.runs
        if not each.finished
    )
    return (
        f"not measured here: {images / 1e6:.3g} million training images; --measure takes a minute "
        "or so, and a run begins with it"
    )


def _disk(plan: Plan) -> str:
    place = plan.directory.absolute()
    while not place.exists():
        place = place.parent
    free = f"{shutil.disk_usage(place).free / 1e9:.0f} GB are free"
    each = [plan.bytes(planned) for planned in plan.runs]
    known = [size for size in each if size is not None]
    if len(known) < len(each):
        return f"not measured here; {free}"
    return f"about {math.fsum(known) / 1e9:.2g} GB for all runs; {free}"


def _methods(plan: Plan) -> list[str]:
    """Return a table with a line a method."""
    rows = [("method", "runs", "finished", "minutes a run")]
    for method in plan.table.methods:
        own = [each for each in plan.runs if each.run.method == method]
        seconds = plan.seconds(own[0], whole=True)
        minutes = "-" if seconds is None else f"{seconds / 60:.1f}"
        rows.append((method, str(len(own)), str(sum(r.finished for r in own)), minutes))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]
