"""Images in host memory against images on the devices: seconds a round, and memory."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.benchmarks.noise import noise_dataset
from semanticfl_jax.benchmarks.rounds import engine_of, one_by_one, timed_round
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.memory import free_device_memory, free_host_memory
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.federated.memory import readable
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.types import Say

#: Images of each client, and their side in pixels.
IMAGES, SIDE = 10, 64
# Images written at a time.
_BLOCK = 20_000
# Share of the free memory that images may take, to be put on the devices at all.
_SHARE = 0.4


def measure(
    config: ExperimentConfig, rounds: int, turns: int = 3, say: Say = print
) -> dict[str, Any]:
    """Time rounds with images in a memory-mapped file of noise, and on the devices if they fit.

    Each client holds 10 images of 64x64. The two take turns of `rounds` rounds, after one that is
    not counted, so that a round's images are gathered while the round before runs, as in a run.

    Args:
      config: what to run; its partition and its data set are not used.
      rounds: of a turn.
      turns: of each.
      say: takes lines for the user.

    Returns:
      `images`, `images_bytes`, `num_clients`, `cohort`; in "memories", for "host" and "device",
      `seconds_per_round` (median, least and greatest), in bytes on each device
      `arguments_bytes` (of the compiled round: images, index table, model) and `temporary_bytes`;
      `gather_seconds` of a cohort by itself; `resident_bytes` of the process, without pages of
      files, after each host round of the first turn; `host_over_device`, the ratio of medians.
      Where images do not fit the devices there is no "device".
    """
    total = IMAGES * config.num_clients
    config = dataclasses.replace(config, batch_size=min(config.batch_size, IMAGES))
    partition = Partition(
        np.random.default_rng(config.seed).permutation(total).astype(np.int32),
        IMAGES * np.arange(config.num_clients + 1),
    )
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    with memory_mapped(total, say) as dataset:
        size = dataset.train_images.nbytes
        names = ["host"] + ["device"] * _fit(size, mesh.local_devices)
        if "device" not in names:
            say("the images do not fit the devices: only host memory is timed")
        engines = {name: _prepared(config, dataset, partition, mesh, name, say) for name in names}
        seconds, resident = _in_turns(engines, rounds, turns)
        gather = _gather_seconds(engines["host"])
    rows: dict[str, dict[str, Any]] = {
        name: {"seconds_per_round": spread(seconds[name]), **_bytes(engine)}
        for name, engine in engines.items()
    }
    for name, row in rows.items():
        median, held = row["seconds_per_round"]["median"], row["arguments_bytes"]
        memory = "" if held is None else f", {readable(held)} of arguments on each device"
        say(f"{name}: {median:.3f} s a round{memory}")
    figures: dict[str, Any] = {
        "images": total,
        "images_bytes": size,
        "num_clients": config.num_clients,
        "cohort": config.clients_per_round,
        "memories": rows,
        "gather_seconds": gather,
        "resident_bytes": resident,
        "rounds": rounds,
        "turns": turns,
        "device": engines["host"].device,
        "versions": versions(),
    }
    if "device" in rows:
        medians = [rows[name]["seconds_per_round"]["median"] for name in ("host", "device")]
        figures["host_over_device"] = medians[0] / medians[1]
        say(f"a round takes {medians[0] / medians[1]:.3f} times as long from host memory")
    return figures


def _prepared(
    config: ExperimentConfig,
    dataset: ImageDataset,
    partition: Partition,
    mesh: Mesh,
    memory: str,
    say: Say,
) -> Engine:
    """Return the run with its images in this memory."""
    config = one_by_one(config.with_runtime(data_memory=memory))
    engine = engine_of(config, dataset, mesh, partition)
    for line in engine.description:
        say(f"{memory}: {line}")
    return engine


@contextlib.contextmanager
def memory_mapped(count: int, say: Say) -> Iterator[ImageDataset]:
    """Yield a data set of noise, `count` training images, memory-mapped from a temporary file."""
    small = noise_dataset(1, side=SIDE)
    shape = (count, SIDE, SIDE, 3)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "train.npy"
        say(f"writing {count:,} images of {SIDE}x{SIDE} to {path}")
        images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        rng = np.random.default_rng(0)
        for begin in range(0, count, _BLOCK):
            some = images[begin : begin + _BLOCK]
            some[...] = rng.integers(0, 256, some.shape, np.uint8)
        images.flush()
        del images
        yield dataclasses.replace(
            small,
            train_images=np.load(path, mmap_mode="r"),
            train_labels=np.arange(count, dtype=np.int32) % small.num_classes,
        )


def _fit(size: int, devices: list[jax.Device]) -> bool:
    """Return whether images of this size can be put whole on each of these devices."""
    free = free_device_memory(devices[0])
    if free is None:  # CPU devices share the host's memory
        free = free_host_memory() // len(devices)
    return size < _SHARE * free


def _in_turns(
    engines: dict[str, Engine], rounds: int, turns: int
) -> tuple[dict[str, list[float]], list[int]]:
    """Return the seconds of each one's rounds, and resident bytes after the first host rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    resident: list[int] = []
    for turn in range(turns):
        names = list(engines)
        for name in names if turn % 2 else reversed(names):
            for number in range(rounds + 1):
                _, elapsed = timed_round(engines[name])
                if number:
                    seconds[name].append(elapsed)
                if name == "host" and turn == 0:
                    resident.append(anonymous_memory())
    return seconds, resident


def _gather_seconds(engine: Engine) -> float:
    """Return the seconds that a cohort's images take to the devices, with nothing beside it."""
    jax.block_until_ready(engine.data_of(engine.round))  # begins with the next one's
    began = time.perf_counter()
    jax.block_until_ready(engine.data_of(engine.round + 1))
    return time.perf_counter() - began


def anonymous_memory() -> int:
    """Return resident bytes of the process without pages of files; all of them where unknown."""
    path = Path("/proc/self/status")
    if not path.is_file():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return int(lines["RssAnon"].split()[0]) * 1024


def _bytes(engine: Engine) -> dict[str, int | None]:
    run_round: Any = engine.run_round
    program = run_round.memory_analysis()
    return {
        # None where XLA does not tell.
        "arguments_bytes": getattr(program, "argument_size_in_bytes", None),
        "temporary_bytes": getattr(program, "temp_size_in_bytes", None),
    }
