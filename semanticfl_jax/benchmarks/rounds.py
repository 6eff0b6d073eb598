"""How fast rounds run: compile time apart from steady time, medians, outputs blocked on."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from semanticfl_jax.benchmarks.flops import training_flops
from semanticfl_jax.benchmarks.matmul_rate import matmul_rate
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.devices.machine import peak_memory
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.reporting.writers.metrics import spread
from semanticfl_jax.simulation.engine import Engine
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import prepare

Say = Callable[[str], None]


def measure(config: ExperimentConfig, rounds: int, say: Say = print) -> dict[str, Any]:
    """Time `rounds` rounds of a configuration after one that is not counted.

    Returns:
      What `time_rounds` and `efficiency` return.
    """
    config = one_by_one(config)
    dataset = sources.from_config(config)
    flops = training_flops(config, dataset)
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    simulation = prepare(make_parts(config, make_federation(dataset, config)), mesh)
    figures = time_rounds(simulation, config, rounds, say)
    return figures | efficiency(flops, figures, mesh, say, dtype=config.precision)


def one_by_one(config: ExperimentConfig) -> ExperimentConfig:
    """Return the configuration whose rounds are dispatched one by one, as they are timed."""
    runtime = dataclasses.replace(config.runtime, rounds_per_dispatch=1)
    return dataclasses.replace(config, runtime=runtime)


def time_rounds(
    simulation: Engine, config: ExperimentConfig, rounds: int, say: Say = print
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
    for line in simulation.description:
        say(line)
    seconds: list[float] = []
    images: list[float] = []
    padding: list[float] = []
    evaluations: list[float] = []
    jax.block_until_ready(simulation.evaluate(simulation.state))  # the first call is not counted
    for number in range(1, rounds + 2):
        metrics, elapsed = timed_round(simulation)
        if number > 1:
            seconds.append(elapsed)
            images.append(float(metrics.images))
            padding.append(float(metrics.padding_share))
            say(f"round {number}: {elapsed:.3f} s, {images[-1] / elapsed:.0f} images/s")
        if number % config.eval_every == 0 or number == rounds + 1:
            began = time.perf_counter()
            tested = jax.block_until_ready(simulation.evaluate(simulation.state))
            evaluations.append(time.perf_counter() - began)
    accuracy = float(tested["test_accuracy"])
    say(f"accuracy after {rounds + 1} rounds: {accuracy:.4f}")
    return {
        "compile_seconds": simulation.compile_seconds,
        "seconds_per_round": spread(seconds),
        "images_per_second": spread([n / s for n, s in zip(images, seconds, strict=True)]),
        "images_per_round": statistics.median(images),
        "padding_share": statistics.median(padding),
        "rounds": rounds,
        "rounds_trained": rounds + 1,
        "accuracy": accuracy,
        "evaluation_seconds": spread(evaluations),
        **peak_memory(),
        "description": simulation.description,
        "device": simulation.device,
        "versions": versions(),
    }


def timed_round(simulation: Engine) -> tuple[RoundMetrics, float]:
    """Run one round to its end; return what it measured, and the seconds that it took."""
    began = time.perf_counter()
    metrics = jax.block_until_ready(simulation.advance(1))
    return metrics, time.perf_counter() - began


def in_turn(simulations: Sequence[Engine], turns: int) -> list[list[float]]:
    """Return the seconds of `turns` rounds of each simulation, after one that is not counted.

    They take turns, so that a slower minute of the machine falls on all of them, and every other
    turn goes backwards, so that a steady drift favours none.
    """
    seconds: list[list[float]] = [[] for _ in simulations]
    order = list(range(len(simulations)))
    for turn in range(turns + 1):
        for index in order if turn % 2 else reversed(order):
            _, elapsed = timed_round(simulations[index])
            if turn:
                seconds[index].append(elapsed)
    return seconds


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
