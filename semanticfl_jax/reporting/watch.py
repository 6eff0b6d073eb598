"""Progress of many runs side by side, read from their directories; it does not touch them.

A run that ended by itself has given its directory's lock back; the kernel tells whether one was
killed on this machine. Whether another is alive is judged by when it last wrote.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.files import read_json_object
from semanticfl_jax.lock import NAME as LOCK
from semanticfl_jax.lock import left_behind
from semanticfl_jax.reporting.labels import method_label
from semanticfl_jax.reporting.metric import ACCURACY, Metric
from semanticfl_jax.reporting.runs import ReportError, diverged, ended, read_bound, with_objects
from semanticfl_jax.reporting.writers.metrics import METRICS_FILE, read_metrics

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Seconds without a new round after which a run is called silent: while it has none since it began
#: or was resumed (it compiles), and at least later; or so many times its longest recent round, if
#: that is more.
_COMPILING, _QUIET, _ROUNDS = 900.0, 120.0, 10.0

#: States in which a run does nothing more by itself.
_OVER = {"finished", "diverged", "stopped"}
#: Seconds for which nothing must go on, until it is taken for the end: of runs that take turns, one
#: may be about to begin.
_SETTLED = 60.0

#: Columns of a terminal from which on everything has room.
_WIDE = 110

#: States in the order in which they are shown, with their colours.
STATES = {
    "running": "green",
    "starting": "cyan",
    "silent": "yellow",
    "stopped": "yellow",
    "damaged": "red",
    "diverged": "red",
    "finished": "dim",
}


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
      path: its directory.
      state: one of `STATES`. "starting": it has no round yet. "stopped": it ended before its last
        round, or was killed on this machine, and can be resumed. "silent": it has written nothing
        for so long that it was probably killed. "diverged": it was stopped for that.
      method: its label.
      seed: of its configuration.
      round, rounds: done, and wanted.
      metric: by which its task judges models.
      last, best: values of the metric; None if they are not known. The last is NaN if it came to no
        number.
      seconds: of a round, median of the last 10; None without rounds.
      age: seconds since it wrote something.
    """

    path: Path
    state: str
    method: str = ""
    seed: Any = None
    round: int = 0
    rounds: int = 0
    metric: Metric = ACCURACY
    last: float | None = None
    best: float | None = None
    seconds: float | None = None
    age: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds of training that are left; None if that is not known."""
        if self.state != "running" or self.seconds is None:
            return None
        return (self.rounds - self.round) * self.seconds


def find(directories: Sequence[str | os.PathLike]) -> list[Path]:
    """Return the runs among directories, and those in directories that are no runs themselves.

    Raises:
      ReportError: for a directory that is not there.
    """
    found: dict[Path, None] = {}
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise ReportError(f"{directory}: no such directory")
        inside = (
            [directory] if (directory / "config.json").is_file() else sorted(directory.iterdir())
        )
        found |= dict.fromkeys(path for path in inside if (path / "config.json").is_file())
    return list(found)


def look(path: Path, now: float | None = None) -> Progress:
    """Return how far a run is.

    Args:
      path: its directory.
      now: seconds since 1970 by which silence is judged; None: the time it is.
    """
    now = time.time() if now is None else now
    try:
        config = read_json_object(path / "config.json")
        summary = read_json_object(path / "summary.json", missing_ok=True)
        rows = read_metrics(path)
        config = with_objects(config, summary, read_bound(path))
    except (SemanticFLError, OSError, ValueError):
        return Progress(path, "damaged", age=now - _written(path))
    metric = _metric(rows, summary)
    evaluated = [row[metric.name] for row in rows if metric.name in row]
    values = [value for value in evaluated if value is not None]
    last = values[-1] if values else None
    if evaluated and evaluated[-1] is None:
        last = math.nan
    recent = [row["seconds"] for row in rows[-10:] if row.get("seconds") is not None]
    done, wanted = rows[-1]["round"] if rows else 0, config.get("rounds", 0)
    age = now - _written(path)
    patience = max(_QUIET, _ROUNDS * max(recent)) if recent else _COMPILING
    if _changed(path / METRICS_FILE) <= _changed(path / LOCK):
        patience = max(patience, _COMPILING)  # it was resumed, and compiles
    if ended(summary, done, wanted):
        state, wanted = "finished", done  # a privacy budget may end a run before
    elif diverged(summary) and summary.get("rounds") == done:
        state = "diverged"
    elif not (path / LOCK).exists() or left_behind(path):
        state = "stopped"
    elif age > patience:
        state = "silent"
    else:
        state = "running" if rows else "starting"
    return Progress(
        path,
        state,
        method_label(config),
        config.get("seed"),
        done,
        wanted,
        metric,
        last,
        (max if metric.higher else min)(values, default=None),
        statistics.median(recent) if recent else None,
        age,
    )


def table(runs: Sequence[Progress], wide: bool = True) -> Table:
    """Return a table with a line a run, those that are under way first.

    Args:
      runs: to show.
      wide: whether there is room for method, seed and a bar, beside the directory.
    """
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    counts = {state: sum(run.state == state for run in runs) for state in STATES}
    title = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    shown = Table(
        title=title or "no runs yet", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    shown.add_column("Run", overflow="fold", min_width=12)
    if wide:
        shown.add_column("Method", overflow="fold", min_width=8)
        shown.add_column("Seed", justify="right", no_wrap=True)
    shown.add_column("Round", justify="right", no_wrap=True)
    if wide:
        shown.add_column("", width=16)
    for name in ("Last", "Best", "s/round", "Left"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("State", no_wrap=True)
    names = _short([run.path for run in runs])
    order = {state: place for place, state in enumerate(STATES)}
    for run, name in sorted(zip(runs, names, strict=True), key=lambda pair: order[pair[0].state]):
        state = f"{run.state} {_span(run.age)}" if run.state == "silent" else run.state
        method = [escape(run.method), "" if run.seed is None else str(run.seed)]
        bar = ProgressBar(total=max(run.rounds, 1), completed=run.round, width=None)
        shown.add_row(
            escape(name),
            *(method if wide else []),
            f"{run.round}/{run.rounds}",
            *([bar] if wide else []),
            _value(run.metric, run.last),
            _value(run.metric, run.best),
            "" if run.seconds is None else f"{run.seconds:.2f}",
            "" if run.left is None else _span(run.left),
            Text(state, style=STATES[run.state]),
        )
    return shown


def watch(
    directories: Sequence[str | os.PathLike],
    *,
    every: float = 2.0,
    once: bool = False,
    console: Console | None = None,
) -> None:
    """Show the table, renewed until no run goes on or Ctrl-C; once if not on a terminal.

    Args:
      directories: runs, or directories that hold runs; runs that appear later are shown too.
      every: seconds between two looks.
      once: whether to look once only.
      console: where to write; by default standard output.

    Raises:
      ReportError: for a directory that is not there.
    """
    from rich.console import Console
    from rich.live import Live

    console = console or Console()
    looks, wide = _looks(directories), console.width >= _WIDE
    if once or not console.is_terminal:
        console.print(table(next(looks), wide))
        return
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live,
    ):
        going_on = time.monotonic()
        for runs in looks:
            live.update(table(runs, wide), refresh=True)
            states = {run.state for run in runs}
            if states <= {"finished", "diverged"} and runs:
                return
            if not runs or not states <= _OVER:
                going_on = time.monotonic()
            if time.monotonic() - going_on > _SETTLED:
                return
            time.sleep(every)


def _looks(directories: Sequence[str | os.PathLike]) -> Iterator[list[Progress]]:
    """Yield all runs again and again; a finished run is read once."""
    finished: dict[Path, Progress] = {}
    while True:
        runs = [finished.get(path) or look(path) for path in find(directories)]
        finished |= {run.path: run for run in runs if run.state == "finished"}
        yield runs


def _metric(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Metric:
    """Return the task's metric; before the end of a run, which names it, by its rows."""
    if "metric" in summary or not rows:
        return Metric.of(summary)
    names = dict.fromkeys(n for row in rows for n in row if n.startswith("test_"))
    others = [name for name in names if name != "test_loss"]
    if "test_accuracy" in names or not others:
        return Metric()
    # Which direction is better is not known yet; errors and losses are the usual exception.
    return Metric(
        others[0], higher=not any(w in others[0] for w in ("mse", "mae", "error", "loss"))
    )


def _written(path: Path) -> float:
    """Return when a run began, was resumed or last wrote a row, in seconds since 1970."""
    return max(_changed(path / name) for name in ("config.json", METRICS_FILE, LOCK))


def _changed(file: Path) -> float:
    """Return when a file was changed, in seconds since 1970; 0 if it is not there."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _short(paths: Sequence[Path]) -> list[str]:
    """Return the paths without the directory that all are in."""
    if len(paths) < 2:
        return [path.name or str(path) for path in paths]
    common = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    return [str(path.resolve().relative_to(common)) for path in paths]


def _value(metric: Metric, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "" if value is None else "–"
    return metric.write(value) + metric.unit


def _span(seconds: float) -> str:
    """Return a span of time in its two largest units."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60):02d} min"
    return f"{int(minutes)} min {int(seconds % 60):02d} s" if minutes >= 1 else f"{seconds:.0f} s"
