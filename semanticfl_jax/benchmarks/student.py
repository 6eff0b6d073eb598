"""What a student costs the clients: the same round without it and with it, in turn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.benchmarks.rounds import compare
from semanticfl_jax.config import ExperimentConfig, GuidanceConfig, StudentConfig, to_dict
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.models import make_model
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import prepare
from semanticfl_jax.types import Say


def measure(
    config: ExperimentConfig, rounds: int, dataset: ImageDataset, say: Say = print
) -> dict[str, Any]:
    """Time rounds of a configuration without a student, with targets computed once, and each step.

    The student has random weights: the arithmetic does not depend on what it knows. Making it, and
    the targets that clients compute at their first contact, are no part of a round.

    Args:
      config: what to run, without guidance.
      rounds: turns of one round each, after one that is not counted.
      dataset: its images.
      say: takes lines for the user.

    Returns:
      `overhead_percent` of "once" and "each_step", over the plain round of the same turn;
      `seconds_per_round` of these and of "plain" (median, least and greatest of each);
      `compile_seconds`, `peak_memory_bytes` with all at hand, and what it ran on.
    """
    federation = make_federation(dataset, config)
    mesh = make_mesh(config.runtime.num_devices, config.clients_per_round)
    student = random_student(config, dataset)
    engines = {"plain": prepare(make_parts(config, federation), mesh)}
    for targets in ("once", "each_step"):
        settings = StudentConfig(enabled=True, targets=targets, dim=student.dim, images="generated")
        guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=settings)
        guided = dataclasses.replace(config, guidance=guidance)
        engines[targets] = prepare(make_parts(guided, federation, student=student), mesh)
    return {**compare(engines, rounds, say), "dim": student.dim}


def random_student(config: ExperimentConfig, dataset: ImageDataset) -> Student:
    """Return a student that knows nothing, of the clients' network."""
    shape, dim = dataset.image_shape, StudentConfig().dim
    network = make_model(ExperimentConfig(model=config.model), dim, shape)
    variables = network.init(jax.random.key(0), jnp.zeros((1, *shape)))
    about = {
        "model": to_dict(config.model),
        "image_shape": list(shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "dim": dim,
        "provenance": {},
        "measured": {},
    }
    parts = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    return Student(parts, about)
