"""A run by the real command on a file system without room, which then gets some."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.chaos.case import ROOT, Case, Options, same_end

#: Kilobytes that the run has: too few to begin with, or for a checkpoint, or for the last ones.
_ROOM = (8, 60, 300, 2500, 4500)
_FLAGS = (
    "--config.rounds=4",
    "--config.model.name=linear",
    "--config.algorithm.name=scaffold",
    "--config.clients_per_round=2",
    "--config.local_epochs=1",
    "--config.batch_size=128",
    "--config.augmentation=none",
    "--config.runtime.num_devices=1",
)


def cases(options: Options, scratch: Path) -> Iterator[Case]:
    """Yield a run for each size of the disk; none where nothing can be mounted."""
    del options
    place = scratch / "mounted"
    place.mkdir(exist_ok=True)
    if _mount(place, 100):
        print("full_disk is left out: a file system cannot be mounted here", file=sys.stderr)
        return
    _unmount(place)
    for room in _ROOM:
        yield Case(f"{room} kB", partial(_fill, scratch, place, room))


def _mount(place: Path, kilobytes: int) -> int:
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def _unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


def _train(workdir: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "launch.train", f"--workdir={workdir}", *_FLAGS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _fill(scratch: Path, place: Path, room: int) -> str | None:
    roomy = scratch / "roomy"
    if not (roomy / "summary.json").exists():
        _train(roomy)
    if _mount(place, room):
        return "it could not be mounted"
    try:
        done = _train(place / "run")
        errors = [line for line in done.stdout.splitlines() if "rror" in line]
        told = len(errors) == 1 and "the disk is full" in errors[0]
        if done.returncode == 0:
            return None if same_end(place / "run", roomy) else "it ended otherwise"
        if done.returncode != 2 or not told or "Traceback" in done.stdout:
            return f"exit {done.returncode}: {done.stdout[-800:]}"
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
        done = _train(place / "run")
        if done.returncode or not (place / "run" / "summary.json").exists():
            return f"with room again: {done.stdout[-800:]}"
        return None if same_end(place / "run", roomy) else "with room again it ended otherwise"
    finally:
        _unmount(place)
