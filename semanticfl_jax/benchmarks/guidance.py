"""What semantic guidance costs the clients: the same round with it and without, in turn."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from semanticfl_jax.benchmarks.rounds import in_turn
from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.data import sources
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.machine import peak_memory
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.parts import make_network, make_parts
from semanticfl_jax.simulation.prepare import prepare

#: Width of Stable Diffusion 1.5's pooled text embedding.
TEXT_WIDTH = 768


def measure(
    config: ExperimentConfig,
    rounds: int,
    say: Callable[[str], None] = print,
    dataset: ImageDataset | None = None,
) -> dict[str, Any]:
    """Time `rounds` rounds of a configuration with and without guidance, after one of each.

    The anchors are random, with the shapes that Stable Diffusion 1.5 would give: the arithmetic
    does not depend on what they say. They are made by the server before round 1, which is no part
    of a round (task `anchors` times it).

    Args:
      config: what to run, without guidance.
      rounds: pairs of rounds.
      say: takes lines for the user.
      dataset: its images; by default those that `config` names.

    Returns:
      `overhead_percent`, of the guided round over the other of the same turn, and
      `seconds_per_round` of "plain" and "guided" (median, least and greatest of each);
      `compile_seconds` of each, `peak_memory_bytes` with both at hand, and what it ran on.
    """
    dataset = sources.from_config(config) if dataset is None else dataset
    federation = make_federation(dataset, config)
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    # Of all anchor sources "generated" is the one that claims no training images.
    guidance = GuidanceConfig(enabled=True, anchor_source="generated")
    guided = dataclasses.replace(config, guidance=guidance)
    outputs = make_network(config, federation).outputs(dataset.train_images.shape[1:])
    assert outputs.features is not None
    width = outputs.features.shape[-1]
    anchors = random_anchors(dataset, width)
    simulations = {
        "plain": prepare(make_parts(config, federation), mesh),
        "guided": prepare(make_parts(guided, federation, anchors), mesh),
    }
    for simulation in simulations.values():
        for line in simulation.description:
            say(line)
    plain, with_guidance = in_turn(list(simulations.values()), rounds)
    pairs = zip(plain, with_guidance, strict=True)
    overhead = spread([100 * (after / before - 1) for before, after in pairs])
    say(
        f"guidance takes {overhead['median']:.1f} % more time a round "
        f"({overhead['min']:.1f} to {overhead['max']:.1f} in {rounds} turns)"
    )
    return {
        "overhead_percent": overhead,
        "seconds_per_round": {"plain": spread(plain), "guided": spread(with_guidance)},
        "compile_seconds": {name: each.compile_seconds for name, each in simulations.items()},
        "anchors": {"visual_width": width, "text_width": TEXT_WIDTH},
        "rounds": rounds,
        **peak_memory(),
        "description": simulations["guided"].description,
        "device": simulations["guided"].device,
        "versions": versions(),
    }


def random_anchors(dataset: ImageDataset, visual_width: int) -> Anchors:
    """Draw anchors without meaning for each class: random unit vectors."""
    rng = np.random.default_rng(0)

    def rows(width: int) -> np.ndarray:
        x = rng.normal(size=(dataset.num_classes, width)).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    return Anchors(
        visual=rows(visual_width),
        text=rows(TEXT_WIDTH),
        class_names=dataset.class_names,
        provenance={},
        maps={},
        padding=0,
    )
