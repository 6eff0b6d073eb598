"""How fast rounds run: compile time apart from steady time, medians, outputs blocked on."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from semanticfl_jax.benchmarks.matmul_rate import matmul_rate
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.machine import peak_memory
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.models.flops import training_flops
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.types import Say


def measure(
    config: ExperimentConfig, rounds: int, dataset: ImageDataset, say: Say = print
) -> dict[str, Any]:
    """Time `rounds` rounds of a configuration after one that is not counted.

    Args:
      config: what to run.
      rounds: to time.
      dataset: its images.
      say: takes lines for the user.

    Returns:
      What `time_rounds` and `efficiency` return.
    """
    config = one_by_one(config)
    flops = training_flops(config, dataset.num_classes, dataset.image_shape)
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    figures = time_rounds(engine_of(config, dataset, mesh), config, rounds, say)
    return figures | efficiency(flops, figures, mesh, say, dtype=config.precision)


def engine_of(
    config: ExperimentConfig,
    dataset: ImageDataset,
    mesh: Mesh,
    partition: Partition | None = None,
) -> Engine:
    """Return the compiled run of a configuration.

    Args:
      config: what to run.
      dataset: its images.
      mesh: the devices.
      partition: who holds which images, in place of `config.partition`.
    """
    return prepare(make_parts(config, make_federation(dataset, config, partition)), mesh)


def one_by_one(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration whose rounds are dispatched one by one, as they are timed."""
    return config.with_runtime(rounds_per_dispatch=1)


def time_rounds(
    engine: Engine, config: ExperimentConfig, rounds: int, say: Say = print
) -> dict[str, Any]:
    """Time `rounds` rounds after one that is not counted, evaluating every `config.eval_every`.

    Its rounds are dispatched one by one (`one_by_one`). Checkpoints and files are left out;
    evaluation is timed apart.

    Returns:
      `compile_seconds`, `seconds_per_round`, `images_per_second` and `evaluation_seconds` (median,
      least and greatest of each), `images_per_round` and `padding_share` (medians), `accuracy`
      after `rounds_trained` rounds, one more than were timed, `peak_memory_bytes` up to here, the
      choices made, and what it ran on.
    """
    for line in engine.description:
        say(line)
    seconds: list[float] = []
    images: list[float] = []
    padding: list[float] = []
    evaluations: list[float] = []
    jax.block_until_ready(engine.evaluate(engine.state))  # the first call is not counted
    for number in range(1, rounds + 2):
        metrics, elapsed = timed_round(engine)
        if number > 1:
            seconds.append(elapsed)
            images.append(float(metrics.images))
            padding.append(float(metrics.padding_share))
            say(f"round {number}: {elapsed:.3f} s, {images[-1] / elapsed:.0f} images/s")
        if number % config.eval_every == 0 or number == rounds + 1:
            began = time.perf_counter()
            tested = jax.block_until_ready(engine.evaluate(engine.state))
            evaluations.append(time.perf_counter() - began)
    accuracy = float(tested["test_accuracy"])
    say(f"accuracy after {rounds + 1} rounds: {accuracy:.4f}")
    return {
        "compile_seconds": engine.compile_seconds,
        "seconds_per_round": spread(seconds),
        "images_per_second": spread([n / s for n, s in zip(images, seconds, strict=True)]),
        "images_per_round": statistics.median(images),
        "padding_share": statistics.median(padding),
        "rounds": rounds,
        "rounds_trained": rounds + 1,
        "accuracy": accuracy,
        "evaluation_seconds": spread(evaluations),
        **peak_memory(),
        "description": engine.description,
        "device": engine.device,
        "versions": versions(),
    }


def timed_round(engine: Engine) -> tuple[RoundMetrics, float]:
    """Run one round to its end; return what it measured, and the seconds that it took."""
    began = time.perf_counter()
    metrics = jax.block_until_ready(engine.advance(1))
    return metrics, time.perf_counter() - began


def in_turn(engines: Sequence[Engine], turns: int) -> list[list[float]]:
    """Return the seconds of `turns` rounds of each engine, after one that is not counted.

    They take turns, so that a slower minute of the machine falls on all of them, and every other
    turn goes backwards, so that a steady drift favours none.
    """
    seconds: list[list[float]] = [[] for _ in engines]
    order = list(range(len(engines)))
    for turn in range(turns + 1):
        for index in order if turn % 2 else reversed(order):
            _, elapsed = timed_round(engines[index])
            if turn:
                seconds[index].append(elapsed)
    return seconds


def compare(engines: Mapping[str, Engine], turns: int, say: Say) -> dict[str, Any]:
    """Time rounds in turn: what those of the others take more than those of the first.

    Args:
      engines: by name; the first is what the others are compared with.
      turns: of one round each, after one that is not counted.
      say: takes lines for the user.

    Returns:
      `overhead_percent` of each of the others, over the first's round of the same turn, and
      `seconds_per_round` of each (median, least and greatest); `compile_seconds` of each, `rounds`,
      `peak_memory_bytes` with all at hand, the choices made for the second, and what it ran on.
    """
    for engine in engines.values():
        for line in engine.description:
            say(line)
    seconds = dict(zip(engines, in_turn(list(engines.values()), turns), strict=True))
    first, *others = engines
    overhead = {}
    for name in others:
        pairs = zip(seconds[first], seconds[name], strict=True)
        found = overhead[name] = spread([100 * (after / before - 1) for before, after in pairs])
        say(
            f"{name}: {found['median']:.1f} % more time a round than {first} "
            f"({found['min']:.1f} to {found['max']:.1f} in {turns} turns)"
        )
    return {
        "overhead_percent": overhead,
        "seconds_per_round": {name: spread(each) for name, each in seconds.items()},
        "compile_seconds": {name: each.compile_seconds for name, each in engines.items()},
        "rounds": turns,
        **peak_memory(),
        "description": engines[others[0]].description,
        "device": engines[first].device,
        "versions": versions(),
    }


def efficiency(
    flops: float,
    figures: dict[str, Any],
    mesh: Mesh,
    say: Say = print,
    dtype: str = "float32",
) -> dict[str, float]:
    """Return how near rounds come to what the devices can do. To be called after memory is read.

    Args:
      flops: of `training_flops`.
      figures: of `time_rounds`.
      mesh: the devices of both.
      say: takes lines for the user.
      dtype: of the matrix products that the devices are measured by.

    Returns:
      `flops_per_image`, of training, and `flops_per_second`, what the rounds' median makes of it;
      `peak_flops_per_second`, of matrix products measured now, and `share_of_peak`;
      `floor_seconds_per_round`, what a round would take at the peak.
    """
    achieved = flops * figures["images_per_second"]["median"]
    peak = matmul_rate(mesh, dtype=jnp.dtype(dtype))
    floor = flops * figures["images_per_round"] / peak
    say(
        f"{flops / 1e6:.1f} MFLOP an image, {achieved / 1e9:.4g} GFLOP/s: {achieved / peak:.1%} of "
        f"the {peak / 1e9:.4g} GFLOP/s of matrix products in {dtype}, which would do a round "
        f"in {floor:.3g} s"
    )
    return {
        "flops_per_image": flops,
        "flops_per_second": achieved,
        "peak_flops_per_second": peak,
        "share_of_peak": achieved / peak,
        "floor_seconds_per_round": floor,
    }
