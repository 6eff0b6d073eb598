"""What the parts have in common: a fault to try, and what a run is compared by."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is tried; numbers of the command line."""

    kills: int = 50
    lengths: int = 5
    configurations: int = 10_000
    partitions: int = 10_000
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
      name: by which it is known in the ledger; no other case has it.
      attempt: does it, and returns what was not as it should be; None if all was.
      tried: how many faults it stands for.
    """

    name: str
    attempt: Callable[[], str | None]
    tried: int = 1


def child(workdir: Path, rounds: int, **more: str) -> subprocess.Popen:
    """Start a process that trains, or goes on with, the guided SCAFFOLD run in `workdir`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.run", str(workdir), str(rounds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(workdir: Path) -> list[dict]:
    """Return the rows of a run without its times; a last one that is cut is left out."""
    from tests.results import metrics_without_times

    return metrics_without_times(workdir)


def same_end(a: Path, b: Path) -> bool:
    """Return whether two runs have the same rows and the same last checkpoint, bit for bit."""
    import jax
    import numpy as np

    from semanticfl_jax.simulation.checkpoint import Checkpoints

    states = []
    for directory in (a, b):
        with Checkpoints(directory / "checkpoints") as checkpoints:
            states.append((checkpoints.latest(), checkpoints.restore_as_saved()))
    leaves = [jax.tree.leaves(state) for state in states]
    pairs = zip(*leaves, strict=True)
    return rows(a) == rows(b) and all(np.array_equal(x, y) for x, y in pairs)
