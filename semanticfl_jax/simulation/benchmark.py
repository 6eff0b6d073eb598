"""How fast rounds run: compile time apart from steady time, medians, outputs blocked on."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data import sources
from semanticfl_jax.reporting.metrics import spread, versions
from semanticfl_jax.simulation.dealing import deal
from semanticfl_jax.simulation.mesh import make_mesh
from semanticfl_jax.simulation.prepare import prepare


def measure(
    config: ExperimentConfig, rounds: int, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Times `rounds` rounds of a configuration after one that is not counted.

    Evaluation, checkpoints and files are left out: this is local training and aggregation.

    Returns:
      `compile_seconds`, `seconds_per_round` and `images_per_second` (median, least and greatest
      of each), `padding_share`, the choices made, and what it ran on.
    """
    dataset = sources.from_config(config)
    _, partition = deal(dataset, config)
    simulation = prepare(
        dataset, partition, None, config, make_mesh(config.num_devices, config.clients_per_round)
    )
    for line in simulation.description:
        say(line)
    state, seconds, rates, padding = simulation.state, [], [], []
    for number in range(rounds + 1):
        began = time.perf_counter()
        state, metrics = simulation.run_round(
            state, simulation.data, simulation.shared, simulation.key
        )
        metrics = jax.block_until_ready((state, metrics))[1]
        elapsed = time.perf_counter() - began
        if number == 0:
            continue
        seconds.append(elapsed)
        rates.append(float(metrics.images) / elapsed)
        padding.append(float(metrics.padding_share))
        say(f"round {number}: {elapsed:.2f} s, {rates[-1]:.0f} images/s")
    return {
        "compile_seconds": simulation.compile_seconds,
        "seconds_per_round": spread(seconds),
        "images_per_second": spread(rates),
        "padding_share": statistics.median(padding),
        "rounds": rounds,
        "description": simulation.description,
        "device": simulation.device,
        "versions": versions(),
    }
