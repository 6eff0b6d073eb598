"""What semantic guidance costs the clients: the same round with it and without, in turn."""

import dataclasses
from typing import Any

import numpy as np

from semanticfl_jax.benchmarks.rounds import compare
from semanticfl_jax.config import ExperimentConfig, GuidanceConfig
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.parts import make_network, make_parts
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.types import Say

#: Width of Stable Diffusion 1.5's pooled text embedding.
TEXT_WIDTH = 768


def measure(
    config: ExperimentConfig, rounds: int, dataset: ImageDataset, say: Say = print
) -> dict[str, Any]:
    """Time `rounds` rounds of a configuration with and without guidance, after one of each.

    The anchors are random, with the shapes that Stable Diffusion 1.5 would give: the arithmetic
    does not depend on what they say. They are made by the server before round 1, which is no part
    of a round (task `anchors` times it).

    Args:
      config: what to run, without guidance.
      rounds: pairs of rounds.
      dataset: its images.
      say: takes lines for the user.

    Returns:
      `overhead_percent`, of the guided round over the other of the same turn, and
      `seconds_per_round` of "plain" and "guided" (median, least and greatest of each);
      `compile_seconds` of each, `peak_memory_bytes` with both at hand, and what it ran on.
    """
    federation = make_federation(dataset, config)
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    # Of all anchor sources "generated" is the one that claims no training images.
    guidance = GuidanceConfig(enabled=True, anchor_source="generated")
    guided = dataclasses.replace(config, guidance=guidance)
    outputs = make_network(config, federation).outputs(dataset.image_shape)
    assert outputs.features is not None
    width = outputs.features.shape[-1]
    anchors = random_anchors(dataset, width)
    engines = {
        "plain": prepare(make_parts(config, federation), mesh),
        "guided": prepare(make_parts(guided, federation, anchors), mesh),
    }
    found = compare(engines, rounds, say)
    return {
        **found,
        "overhead_percent": found["overhead_percent"]["guided"],
        "anchors": {"visual_width": width, "text_width": TEXT_WIDTH},
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
