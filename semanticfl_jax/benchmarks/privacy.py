"""What differential privacy costs a round: the same round with clipping and noise, and without."""

import dataclasses
import time
from typing import Any

from semanticfl_jax.benchmarks.many_clients import IMAGES, overlapping_partition
from semanticfl_jax.benchmarks.rounds import compare, one_by_one
from semanticfl_jax.config import (
    AlgorithmConfig,
    AvailabilityConfig,
    ExperimentConfig,
    PrivacyConfig,
)
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.privacy.accounting import Ledger
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.types import Say


def measure(
    config: ExperimentConfig, rounds: int, dataset: ImageDataset, say: Say = print
) -> dict[str, Any]:
    """Time rounds of clients of 20 images each with and without central privacy, in turn.

    Cohorts are drawn by Poisson sampling, and weights are uniform, in both. Clipping adapts.

    Args:
      config: what to run; its partition is not used, and its network keeps no running statistics.
      rounds: pairs of rounds, after one of each.
      dataset: the images; clients share them where there are too few.
      say: takes lines for the user.

    Returns:
      `overhead_percent`, of the private round over the other of the same turn, and
      `seconds_per_round` of "plain" and "private" (median, least and greatest of each);
      `seconds_per_epsilon`, which the host takes to account for a round; `compile_seconds` of
      each, `peak_memory_bytes` with both at hand, and what it ran on.
    """
    config = dataclasses.replace(
        one_by_one(config),
        model=dataclasses.replace(config.model, norm="group"),
        algorithm=AlgorithmConfig(weights="uniform"),
        availability=AvailabilityConfig(sampling="poisson"),
    )
    privacy = PrivacyConfig("central", noise_multiplier=1.0, settings={"adaptive": True})
    sizes = (len(dataset.train_labels), config.num_clients, IMAGES, config.seed)
    federation = make_federation(dataset, config, overlapping_partition(*sizes))
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    parts = {
        "plain": make_parts(config, federation),
        "private": make_parts(dataclasses.replace(config, privacy=privacy), federation),
    }
    ledger = parts["private"].ledger
    assert ledger is not None
    found = compare({name: prepare(each, mesh) for name, each in parts.items()}, rounds, say)
    return {
        "num_clients": config.num_clients,
        "cohort": config.clients_per_round,
        **found,
        "overhead_percent": found["overhead_percent"]["private"],
        "seconds_per_epsilon": _accounting(ledger),
    }


def _accounting(ledger: Ledger) -> float:
    """Return the seconds that the epsilon of a round takes, median of five, after a first one."""
    seconds = []
    for number in range(1, 7):
        began = time.perf_counter()
        ledger.epsilon(number)
        seconds.append(time.perf_counter() - began)
    return spread(seconds[1:])["median"]
