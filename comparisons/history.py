r"""Times this tree and an earlier commit in turn, and keeps what came out, by kind of machine.

    python -m comparisons.history --task=many_clients [--against=COMMIT] [--alternations=3] \
        [-- --num_clients=2000 --cohort=50 --rounds=3]

What follows `--` goes to launch.benchmark. By default the other side is the commit of this task's
last entry on this kind of machine, or the parent of this one. Runs are processes of their own, the
earlier commit's first in every other pair, as in comparisons/compare.py, because a machine's speed
drifts by more than a change makes: seconds of different days are not compared. A median of pairs
more than 15 % slower is flagged, and the status is then 1. Each entry (date, commits, command,
medians, ratio of every pair) is a line of comparisons/history/MACHINE.jsonl, which is to be
committed; entries made while others were busy say so. The flag --data_dir is left out.
"""

import argparse
import datetime
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparisons import compare
from semanticfl_jax.devices.machine import BUSY, host
from semanticfl_jax.devices.versions import code_commit
from semanticfl_jax.files import write_text
from semanticfl_jax.reporting.spread import spread

FOLDER = compare.ROOT / "comparisons" / "history"
TASKS = ("many_clients", "pfl_cifar10", "family_cifar10")
#: How much slower a median may be.
SLOWER = 0.15


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Reads the flags, and refuses what cannot be run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, default=TASKS[0])
    parser.add_argument("--against", help="the earlier commit")
    parser.add_argument("--alternations", type=int, default=3, help="pairs of runs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where histories are kept")
    own, more = arguments, []
    if "--" in arguments:
        place = arguments.index("--")
        own, more = arguments[:place], arguments[place + 1 :]
    args = parser.parse_args(own)
    if args.alternations < 1:
        parser.error(f"--alternations must be at least 1, got {args.alternations}")
    args.more = more
    return args


def machine_kind(machine: dict[str, Any]) -> str:
    """A name for machines of this kind, fit for a file."""
    words = f"{machine['cpu']} {machine['cores']} cores {machine.get('gpu', '')}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "unknown"


def gpu() -> str:
    """The name of the first NVIDIA GPU; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return (found.splitlines() or [""])[0]


def read(path: Path) -> list[dict[str, Any]]:
    """The entries of a history, the oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def earlier(entries: list[dict[str, Any]], task: str, more: list[str]) -> str:
    """The commit to compare with: of the last entry of the same measurement, or the parent."""
    same = [each for each in entries if (each["task"], each["flags"]) == (task, more)]
    for entry in reversed(same):
        commit = (entry["commit"] or "").removesuffix("-dirty")
        if commit and not _git("cat-file", "-e", f"{commit}^{{commit}}").returncode:
            return commit
    return "HEAD~1"


def told(more: list[str]) -> list[str]:
    """The flags that an entry is known by: all but the place of the data."""
    return [
        flag
        for before, flag in zip(["", *more], more, strict=False)
        if before != "--data_dir" and flag.partition("=")[0] != "--data_dir"
    ]


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", *arguments], cwd=compare.ROOT, capture_output=True, check=False)


def unpack(commit: str, directory: Path) -> None:
    """Writes the files of a commit to a directory.

    Raises:
      SystemExit: if git does not have it.
    """
    made = _git("archive", commit)
    if made.returncode:
        sys.exit(f"--against={commit}: {made.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(directory)], input=made.stdout, check=True)


def measure(args: argparse.Namespace, commit: str, before: Path) -> dict[str, Any]:
    """Runs both trees in turn, saying what each took; returns an entry."""
    command = [sys.executable, "-m", "launch.benchmark", f"--task={args.task}", *args.more]
    trees = {"now": compare.ROOT, "before": before}
    medians: dict[str, list[float]] = {"now": [], "before": []}
    busy = 0.0
    with tempfile.TemporaryDirectory() as directory:
        for number in range(args.alternations):
            for side in sorted(trees, reverse=number % 2 == 0):
                figures = compare.run(command, Path(directory), trees[side])
                medians[side].append(figures["seconds_per_round"]["median"])
                busy = max(busy, figures["busy_before"])
                print(f"{number + 1} {side:6} {medians[side][-1]:8.3f} s a round", flush=True)
    pairs = zip(medians["now"], medians["before"], strict=True)
    ratios = [now / earlier for now, earlier in pairs]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": args.task,
        "flags": told(args.more),
        "commit": code_commit(),
        "before": commit,
        "seconds_per_round": {side: spread(several)["median"] for side, several in medians.items()},
        "time_ratio": spread(ratios),
        "time_ratio_of_pairs": ratios,
        "slower": spread(ratios)["median"] > 1 + SLOWER,
        "others_busy": busy > BUSY,
    }


def append(path: Path, entry: dict[str, Any]) -> None:
    """Adds an entry to a history."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(each) for each in [*read(path), entry]]
    write_text(path, "\n".join(lines) + "\n")


def main(arguments: list[str]) -> int:
    args = parse_arguments(arguments)
    machine = host() | {"gpu": gpu()}
    path = args.folder / f"{machine_kind(machine)}.jsonl"
    commit = args.against or earlier(read(path), args.task, told(args.more))
    named = _git("rev-parse", "--short=10", f"{commit}^{{commit}}").stdout.decode().strip()
    with tempfile.TemporaryDirectory() as directory:
        unpack(commit, Path(directory))
        entry = measure(args, named or commit, Path(directory))
    append(path, entry)
    ratio = entry["time_ratio"]
    print(
        f"{shlex.join([args.task, *args.more])}: {ratio['median']:.3f} times the time of "
        f"{entry['before']} ({ratio['min']:.3f} to {ratio['max']:.3f}); {path}"
    )
    if entry["others_busy"]:
        print("warning: other processes were busy, the ratio means little")
    if entry["slower"]:
        print(f"SLOWER: more than {SLOWER:.0%} above it")
    return int(entry["slower"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
