"""Faults on purpose, and what comes of them; too slow for the test suite.

    python -m tests.chaos [--kills=50] [--lengths=5] [--configurations=200] [--partitions=10000]

kill         kill -9 at random moments of a guided SCAFFOLD run, which goes on each time; its rows
             and its last checkpoint must be those of an uninterrupted run, bit for bit
truncate     every file that a run writes, cut at random lengths: the run names it and is refused,
             or ends as it would have
configure    malformed values for every field: refused within 2 s by the field's name
partition    random requests of the partitioner: refused, or no index twice and no client empty
full disk    a run on a file system of 300 kB: one line, and it goes on when there is room (needs
             the right to mount one)

Prints a Markdown table; the exit status is 1 if anything was not as it should be.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PARTS = ("kill", "truncate", "configure", "partition", "full disk")


def child(workdir: Path, rounds: int, **more: str) -> subprocess.Popen:
    """Start a process that trains, or goes on with, the guided SCAFFOLD run in `workdir`."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos_run", str(workdir), str(rounds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def rows(workdir: Path) -> list[dict]:
    """Return the rows of a run without its times; a last one that is cut is left out."""
    from semanticfl_jax.reporting.writers.metrics import read_metrics

    drop = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in drop} for row in read_metrics(workdir)]


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


def kill(count: int, scratch: Path, chance: random.Random) -> Iterator[str | None]:
    """Kill one run `count` times; yield None for each resume that was right, else what was not."""
    rounds = 6 * count
    whole, killed = scratch / "whole", scratch / "killed"
    output, _ = child(whole, rounds).communicate()
    assert (whole / "summary.json").exists(), output
    expected = rows(whole)
    for number in range(count):
        before, process = len(rows(killed)), child(killed, rounds)
        if chance.random() < 0.8:  # in the midst of rounds, else at any moment of the start
            while process.poll() is None and len(rows(killed)) <= before:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.3))
        else:
            time.sleep(chance.uniform(0, 6))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        there = rows(killed)
        if process.returncode not in (0, -signal.SIGKILL):
            yield f"kill {number}: ended with {process.returncode}: {output[-300:]}"
        else:
            yield None if there == expected[: len(there)] else f"kill {number}: other rows"
    output, _ = child(killed, rounds).communicate()
    ended = (killed / "summary.json").exists() and same_end(whole, killed)
    yield None if ended else f"after {count} kills the run ended otherwise: {output[-300:]}"


def truncate(lengths: int, scratch: Path, chance: random.Random) -> Iterator[str | None]:
    """Cut every file of an unfinished and of a finished run at random lengths."""
    from semanticfl_jax.errors import SemanticFLError
    from tests.chaos_run import train

    whole, unfinished = scratch / "finished", scratch / "unfinished"
    train(whole, 3)
    shutil.copytree(whole, unfinished)
    (unfinished / "summary.json").unlink()
    expected = rows(whole)
    for run, files in (
        (unfinished, [path for path in unfinished.rglob("*") if path.is_file()]),
        (whole, [whole / "summary.json", whole / "model.safetensors", whole / "config.json"]),
    ):
        for path in sorted(files):
            name, size = path.relative_to(run), path.stat().st_size
            for length in {0, *(chance.randrange(max(size, 1)) for _ in range(lengths - 1))}:
                copy = scratch / "copy"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(run, copy)
                os.truncate(copy / name, length)
                try:
                    train(copy, 3)
                except SemanticFLError as error:
                    # A part of a checkpoint is named by the checkpoint.
                    named = name.parts[0] if name.parts[0] == "checkpoints" else name.name
                    yield None if named in str(error) else f"{name} at {length}: {error}"
                except Exception as error:
                    yield f"{name} cut at {length} of {size}: {error!r:.200}"
                else:
                    right = rows(copy) == expected and same_end(whole, copy)
                    yield None if right else f"{name} cut at {length} of {size}: another result"


def wrong_values(hint: object, chance: random.Random) -> str | None:
    """Return a text that a field of this type cannot take; None where it takes any."""
    import typing

    from semanticfl_jax.config.fields import PathText, describe

    args = typing.get_args(hint)
    if hint == PathText or PathText in args:
        return chance.choice(["gs://bucket/x", "", "$NOT_SET_ANYWHERE/x", "s3://b"])
    takes_any = hint in (str, tuple[str, ...], typing.Any)
    if takes_any or (str in args and "a text" in describe(hint)):
        return None
    return chance.choice(["many", "2,x", "maybe", "1e", "[1", "none of these", "-", "=", "nan"])


def configure(count: int, chance: random.Random) -> Iterator[str | None]:
    """Give fields, those of registered entries too, what they cannot take."""
    from semanticfl_jax import ExperimentConfig
    from semanticfl_jax.config.fields import Choosing, field_types, group_class
    from semanticfl_jax.config.overrides import parse
    from semanticfl_jax.errors import ConfigError

    def fields(cls: type, prefix: str = "") -> Iterator[tuple[str, object]]:
        for name, hint in field_types(cls).items():
            if group_class(hint) is None:
                yield prefix + name, hint
            else:
                yield from fields(group_class(hint), f"{prefix}{name}.")
        if issubclass(cls, Choosing):
            for name, entry in cls.entries().items():
                yield from fields(entry.settings, f"{prefix}{name}.")

    known = list(fields(ExperimentConfig))
    tried = 0
    while tried < count:
        name, hint = chance.choice(known)
        value = wrong_values(hint, chance)
        if value is None:
            continue
        tried += 1
        began = time.perf_counter()
        try:
            parse(ExperimentConfig, name, value)
            yield f"{name}={value!r} was taken"
        except ConfigError as error:
            seconds = time.perf_counter() - began
            right = name in str(error) and seconds < 2
            yield None if right else f"{name}={value!r}: {error} ({seconds:.1f} s)"


def partition(count: int) -> Iterator[str | None]:
    """Ask for random partitions."""
    import numpy as np
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from semanticfl_jax import PartitionConfig
    from semanticfl_jax.data.partition import make_partition
    from semanticfl_jax.errors import SemanticFLError
    from semanticfl_jax.registry import PARTITIONS

    outcomes: list[str | None] = []
    schemes = [name for name, entry in PARTITIONS.items() if "column" not in entry.uses]

    @settings(max_examples=count, deadline=None, database=None)
    @given(
        st.sampled_from(schemes),
        st.integers(1, 400),
        st.integers(1, 12),
        st.integers(1, 60),
        st.floats(1e-3, 1e3),
        st.integers(1, 8),
        st.sampled_from([1.0, 3.0, 100.0]),
        st.integers(0, 2**31 - 1),
    )
    def ask(scheme, samples, classes, clients, alpha, shards, tail, seed):
        values = {"alpha": alpha, "shards_per_client": shards}
        uses = PARTITIONS[scheme].uses
        given = {name: value for name, value in values.items() if name in uses}
        labels = np.random.default_rng(seed).integers(0, classes, samples).astype(np.int32)
        began, wrong = time.perf_counter(), None
        try:
            config = PartitionConfig(scheme=scheme, imbalance_factor=tail, **given)
            made = make_partition(config, labels, clients, seed=seed)
            if len(np.unique(made.indices)) != len(made.indices):
                wrong = "an index twice"
            elif made.num_clients != clients or made.sizes.min() < 1:
                wrong = "a client without samples"
            elif made.indices.min() < 0 or made.indices.max() >= samples:
                wrong = "an index out of range"
        except SemanticFLError:
            pass
        if time.perf_counter() - began > 10:
            wrong = "over 10 s"
        outcomes.append(wrong and f"{scheme}, {samples} samples, {clients} clients: {wrong}")

    ask()
    yield from outcomes


def full_disk(scratch: Path) -> Iterator[str | None]:
    """Train where there is no room, then where there is."""
    place = scratch / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        return
    try:
        (place / "others").write_bytes(bytes(200_000))
        process = child(place / "run", 30, THROUGH_COMMAND="1")
        output, _ = process.communicate()
        errors = [line for line in output.splitlines() if "error" in line.lower()]
        told = len(errors) == 1 and errors[0].startswith("error: the disk is full")
        right = process.returncode == 2 and told and "Traceback" not in output
        yield None if right else f"exit {process.returncode}: {output[-600:]}"
        subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
        output, _ = child(place / "run", 30, THROUGH_COMMAND="1").communicate()
        child(scratch / "roomy", 30).communicate()
        right = (place / "run" / "summary.json").exists()
        right = right and same_end(place / "run", scratch / "roomy")
        yield None if right else f"with room again: {output[-600:]}"
    finally:
        subprocess.run(["umount", str(place)], check=False)


def main() -> int:
    """Do all parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("kills", 50),
        ("lengths", 5),
        ("configurations", 200),
        ("partitions", 10_000),
        ("seed", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--parts", default=",".join(PARTS))
    given = parser.parse_args()
    chance = random.Random(given.seed)
    table = ["| part | tried | as it should be | seconds |", "|---|---:|---:|---:|"]
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        cache = {"JAX_COMPILATION_CACHE_DIR": str(scratch / "programs")}
        os.environ |= cache | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        ways: dict[str, Callable[[], Iterator[str | None]]] = {
            "kill": lambda: kill(given.kills, scratch, chance),
            "truncate": lambda: truncate(given.lengths, scratch, chance),
            "configure": lambda: configure(given.configurations, chance),
            "partition": lambda: partition(given.partitions),
            "full disk": lambda: full_disk(scratch),
        }
        for name in given.parts.split(","):
            began = time.perf_counter()
            found = list(ways[name]())
            wrong = [f"{name}: {each}" for each in found if each is not None]
            seconds = time.perf_counter() - began
            table.append(f"| {name} | {len(found)} | {len(found) - len(wrong)} | {seconds:.0f} |")
            print(json.dumps({"part": name, "wrong": wrong}), file=sys.stderr, flush=True)
            problems += wrong
    print("\n".join(table))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
