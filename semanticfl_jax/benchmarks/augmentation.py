"""What augmentation costs: its share of a training step, and its time alone."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax

from semanticfl_jax.benchmarks.noise import noise_dataset
from semanticfl_jax.benchmarks.rounds import engine_of, in_turn
from semanticfl_jax.benchmarks.tuning import noise_workload
from semanticfl_jax.config import (
    ExperimentConfig,
    ModelConfig,
    PartitionConfig,
    RuntimeConfig,
    to_dict,
)
from semanticfl_jax.data.augment import augment
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.tuning.choose import choose
from semanticfl_jax.types import Say

# Clients side by side, at most.
_CLIENTS = 16

#: Lists of steps to compare; the first, without any, is what the others are compared with.
CASES = (
    (),
    ("crop_flip",),
    ("crop_flip", "autoaugment"),
    ("crop_flip", "autoaugment", "cutout"),
)


def measure(
    model: ModelConfig,
    *,
    repeats: int,
    steps: int = 5,
    batch_size: int = 64,
    image_size: int = 32,
    cases: Sequence[tuple[str, ...]] = CASES,
    say: Say = print,
) -> dict[str, Any]:
    """Time rounds of `steps` local steps with each list of augmentation steps, on one device.

    The cases take turns, so that a slower minute of the machine falls on all of them, and a share
    is the median over turns of (time with - time without) / time with. Images are noise: no
    operation takes longer for what it sees.

    Args:
      model: the clients' network.
      repeats: turns that are timed, after one that is not counted.
      steps: optimiser steps of a round, for each client.
      batch_size: images of a step.
      image_size: side of the images.
      cases: lists of names in `data.augment.AUGMENTATIONS`; the first is the reference.
      say: takes lines for the user.

    Returns:
      What was run on what, and in "cases", a dictionary a case: `augmentation`,
      `seconds_per_step` (median, least and greatest, of all clients side by side),
      `share_of_step`, `alone_microseconds_per_image`, and `alone_share_of_step`, what the time
      alone would be of a step's: less exact, and far less noisy.
    """
    config = ExperimentConfig(
        model=model,
        augmentation=cases[0],
        partition=PartitionConfig(scheme="iid"),
        num_clients=_CLIENTS,
        clients_per_round=_CLIENTS,
        local_epochs=1,
        batch_size=batch_size,
        public_per_class=0,
        runtime=RuntimeConfig(num_devices=1),
    )
    # What suits the first case, for all: they must differ in nothing else.
    work = noise_workload(config, side=image_size, largest=steps * batch_size)
    choice = choose(work, make_mesh(1), say=say)
    clients = choice.clients_per_chunk
    config = dataclasses.replace(
        choice.applied(config), num_clients=clients, clients_per_round=clients
    )
    dataset = noise_dataset(clients * steps * batch_size, side=image_size)
    engines = []
    for names in cases:
        engines.append(
            engine_of(dataclasses.replace(config, augmentation=names), dataset, make_mesh(1))
        )
        say(f"compiled in {engines[-1].compile_seconds:.0f} s with {_name(names)}")
    seconds = [[each / steps for each in times] for times in in_turn(engines, repeats)]
    figures = []
    for names, times in zip(cases, seconds, strict=True):
        pairs = zip(times, seconds[0], strict=True)
        alone = _alone(names, batch_size, image_size, repeats)
        step = spread(times)
        figures.append(
            {
                "augmentation": list(names),
                "seconds_per_step": step,
                "share_of_step": statistics.median((this - bare) / this for this, bare in pairs),
                "alone_microseconds_per_image": 1e6 * alone,
                "alone_share_of_step": alone * batch_size * clients / step["median"],
            }
        )
        say(_line(figures[-1]))
    return {
        "model": to_dict(model),
        "batch_size": batch_size,
        "image_size": image_size,
        "clients_side_by_side": clients,
        "choice": str(choice),
        "steps": steps,
        "repeats": repeats,
        "cases": figures,
        "device": engines[0].device,
        "description": engines[0].description,
        "versions": versions(),
    }


def _alone(names: tuple[str, ...], batch_size: int, side: int, repeats: int) -> float:
    """Return the seconds an image of augmentation alone, median of ten times `repeats` runs."""
    images = jax.device_put(noise_dataset(batch_size, side=side).train_images)
    run = jax.jit(augment, static_argnums=2)
    times = []
    for turn in range(10 * repeats + 1):
        key = jax.block_until_ready(jax.random.key(turn))
        began = time.perf_counter()
        jax.block_until_ready(run(key, images, names))
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]) / batch_size


def _name(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names) or "no augmentation"


def _line(case: dict[str, Any]) -> str:
    return (
        f"{_name(case['augmentation'])}: {1e3 * case['seconds_per_step']['median']:.1f} ms a step, "
        f"{100 * case['share_of_step']:.1f} % of it augmentation; alone "
        f"{case['alone_microseconds_per_image']:.1f} microseconds an image, "
        f"{100 * case['alone_share_of_step']:.1f} %"
    )
