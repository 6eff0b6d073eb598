"""kill -9 at random moments of a run that goes on each time."""

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.chaos.case import Case, Options, child, rows, same_end

#: Rounds between two kills, about.
_ROUNDS = 6


def cases(options: Options, scratch: Path) -> Iterator[Case]:
    """Yield the kills of one run, then its end beside that of an uninterrupted run."""
    rounds = _ROUNDS * options.kills
    for number in range(options.kills):
        yield Case(f"kill {number}", partial(_kill, scratch, rounds, number, options.seed))
    yield Case("end", partial(_end, scratch, rounds))


def _whole(scratch: Path, rounds: int) -> Path:
    """Return the directory of the uninterrupted run, which is trained if it was not."""
    whole = scratch / "whole"
    if not (whole / "summary.json").exists():
        output, _ = child(whole, rounds).communicate()
        assert (whole / "summary.json").exists(), output
    return whole


def _kill(scratch: Path, rounds: int, number: int, seed: int) -> str | None:
    expected, killed = rows(_whole(scratch, rounds)), scratch / "killed"
    chance = random.Random(f"{seed} {number}")
    before, process = len(rows(killed)), child(killed, rounds)
    if chance.random() < 0.8:  # in the midst of rounds, else at any moment of the start
        while process.poll() is None and len(rows(killed)) <= before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
    else:
        time.sleep(chance.uniform(0, 6))
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        return f"ended with {process.returncode}: {output[-300:]}"
    there = rows(killed)
    return None if there == expected[: len(there)] else f"other rows, of {len(there)}"


def _end(scratch: Path, rounds: int) -> str | None:
    killed = scratch / "killed"
    output, _ = child(killed, rounds).communicate()
    ended = (killed / "summary.json").exists() and same_end(_whole(scratch, rounds), killed)
    return None if ended else f"the run ended otherwise: {output[-300:]}"
