r"""Does faults on purpose and prints a table of what came of them.

    python -m tests.chaos [--parts=kill,truncate,...] [--kills=50] [--lengths=5] \
        [--configurations=10000] [--partitions=10000] [--keep=DIR [--seconds=240]]

kill         kill -9 at random moments of a guided SCAFFOLD run, which goes on each time; its rows
             and its last checkpoint must be those of an uninterrupted run, bit for bit
truncate     every file that a run writes or is given, cut at random lengths: the run names it and
             is refused, or ends as it would have
configure    malformed values for every field of everything that can be chosen: refused within 2 s
             by the field's name
partition    random requests of the partitioner: refused, or no index twice and no client empty
full_disk    a run by the real command on file systems of some kB to some MB: one line, and it goes
             on when there is room (needs the right to mount one)

With --keep, what was tried is kept in DIR, and the same command does what is left; with --seconds
it stops in between after about so long. The exit status is 1 if anything was not as it should be,
and 3 if something is left to do.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos import configure, full_disk, kill, partition, truncate
from tests.chaos.case import Case, Options

PARTS = {
    "kill": kill.cases,
    "truncate": truncate.cases,
    "configure": configure.cases,
    "partition": partition.cases,
    "full_disk": full_disk.cases,
}


class Ledger:
    """What was tried so far, a line a case, in a file that is only ever added to."""

    def __init__(self, path: Path):
        self._path = path
        text = path.read_text() if path.exists() else ""
        self.lines = {line["case"]: line for line in map(json.loads, text.splitlines())}

    def add(self, case: str, wrong: str | None, seconds: float, tried: int) -> None:
        """Note what came of a case; `wrong` is None if all was as it should be."""
        line = {"case": case, "wrong": wrong, "seconds": seconds, "tried": tried}
        self.lines[case] = line
        with open(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")

    def row(self, part: str) -> str:
        """Return the part's row of the table."""
        lines = self.lines.values()
        tried = sum(line["tried"] for line in lines)
        wrong = sum(line["wrong"] is not None for line in lines)
        seconds = sum(line["seconds"] for line in lines)
        return f"| {part} | {tried:,} | {tried - wrong:,} | {seconds:.0f} |"


def do(cases: Iterator[Case], ledger: Ledger, until: float) -> bool:
    """Try what was not tried before; return whether everything was by the time `until`."""
    for case in cases:
        if case.name in ledger.lines:
            continue
        if time.monotonic() >= until:
            return False
        began = time.perf_counter()
        wrong = case.attempt()
        ledger.add(case.name, wrong, time.perf_counter() - began, case.tried)
        if wrong is not None:
            print(f"{case.name}: {wrong}", file=sys.stderr, flush=True)
    return True


def main() -> int:
    """Do the parts and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in Options().__dict__.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    options = Options(**{name: getattr(given, name) for name in Options().__dict__})
    until = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as temporary:
        keep = (given.keep or Path(temporary)).absolute()
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(keep / "programs")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        ledgers, left = {}, []
        for part in given.parts.split(","):
            scratch = keep / part
            scratch.mkdir(parents=True, exist_ok=True)
            ledgers[part] = Ledger(keep / f"{part}.jsonl")
            if not do(PARTS[part](options, scratch), ledgers[part], until):
                left.append(part)
        print("\n| part | tried | as it should be | seconds |\n|---|---:|---:|---:|")
        print("\n".join(ledger.row(part) for part, ledger in ledgers.items()))
        wrong = [line for of in ledgers.values() for line in of.lines.values() if line["wrong"]]
    for line in wrong:
        print(f"{line['case']}: {line['wrong']}")
    for part in left:
        print(f"{part} is not finished: run the same command again")
    return 1 if wrong else 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
