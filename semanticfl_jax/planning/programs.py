"""A run's programs by name, lowered for devices that need not be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms import LossTerm
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.host_images import with_shapes
from semanticfl_jax.devices.mesh import replicated, split
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.cohort import cohort_places
from semanticfl_jax.federated.dispatch import in_blocks
from semanticfl_jax.federated.first_contact import block_size, make_block, row_shapes
from semanticfl_jax.federated.local_training import known_steps
from semanticfl_jax.planning.shapes import Arguments, placed
from semanticfl_jax.planning.topology import Topology
from semanticfl_jax.pretraining import loop
from semanticfl_jax.semantics.student.building import network_in_training
from semanticfl_jax.semantics.student.training import make_training
from semanticfl_jax.simulation.parts import Parts
from semanticfl_jax.simulation.prepare import make_programs
from semanticfl_jax.simulation.student import client_side
from semanticfl_jax.tuning.choose import Choice

#: What can be compiled. "block" is as many rounds as a dispatch has, "first_contact" what clients
#: compute of their images once, "distillation" a step of the training of a run's own student,
#: "features" the diffusion model's pass over a batch of images.
PROGRAMS = ("round", "block", "evaluation", "first_contact", "distillation", "features")
#: Those that depend on how many clients are side by side.
OF_CLIENTS = ("round", "block")
#: Those whose network is the student, whose lowering is not the configuration's.
OF_STUDENT = ("first_contact", "distillation")
# Rounds of a block: its program is the same for any number.
_BLOCK = 10


def default_programs(config: ExperimentConfig) -> tuple[str, ...]:
    """Return the programs that a run compiles, but for blocks, which are rounds in a loop.

    Nor for features: of a large diffusion model they take minutes to compile.
    """
    found, settings = ("round", "evaluation"), config.guidance.student
    if not config.guidance.uses_student:
        return found
    if settings.sets_targets and settings.targets == "once":
        found += ("first_contact",)
    return (*found, "distillation") if _distils(config) else found


def check_programs(programs: Sequence[str], parts: Parts) -> None:
    """Raise `SemanticFLError` for programs that a run has not."""
    config = parts.config
    if config.runtime.data_memory == "host" and "block" in programs:
        raise SemanticFLError(
            "runtime.data_memory must be device for a block of rounds: from host memory, images "
            "come round by round"
        )
    if "first_contact" in programs and len(_contact_terms(parts)) != 1:
        raise SemanticFLError(
            "--programs=first_contact needs one term for which clients compute rows of their "
            "images, as a student's with guidance.student.targets=once; this run has "
            f"{len(_contact_terms(parts)) or 'none'}"
        )
    if "features" in programs and not _reads_images(config):
        raise SemanticFLError(
            "--programs=features needs a run for which a diffusion model reads images: one with "
            "anchors, as of algorithm.name=semanticfl, or that makes its student of one"
        )
    if "distillation" in programs and not _distils(config):
        raise SemanticFLError(
            "--programs=distillation needs a run that makes its student: guidance.student.enabled "
            "true, guidance.student.images public, directory, generated or dataset:NAME, and "
            "guidance.student.file none"
        )


class Target(NamedTuple):
    """A run, and the devices that it is compiled for.

    Attributes:
      parts: of `make_shapes`.
      topology: the devices that there are.
      mesh: those that the run takes.
      arguments: of `make_arguments`.
      each: images of every client.
    """

    parts: Parts
    topology: Topology
    mesh: Mesh
    arguments: Arguments
    each: int


def lower(program: str, target: Target, choice: Choice) -> jax.stages.Lowered:
    """Lower a program of a run.

    Args:
      program: of `PROGRAMS`, that the run has (`check_programs`).
      target: the run and the devices.
      choice: lowering of the convolutions, and clients side by side.
    """
    parts, topology, mesh, arguments, each = target
    if program == "first_contact":
        return _first_contact(target)
    if program == "distillation":
        return _distillation(parts, topology)
    config, dataset = parts.config, parts.federation.dataset
    if program == "features":
        # Here alone: other plans need no diffusion libraries.
        from semanticfl_jax.planning.features import lower_features

        return lower_features(config, topology, dataset.image_shape, dataset.num_classes)
    steps = known_steps(np.array([each]), config, parts.algorithm)
    built = make_programs(parts, mesh, choice, steps)
    state, data, shared, key, rates, test = arguments
    if config.runtime.data_memory == "host":
        (places,) = jax.eval_shape(built.cohort, np.int32(0), data.sizes, key).shape
        most = min(places // mesh.devices.size, cohort_places(config))
        rows = mesh.devices.size * most * each
        data = with_shapes(data, rows, places, split(mesh))
    if program == "evaluation":
        return built.evaluate.lower(jax.eval_shape(built.tested, state, shared), test)
    run_round: Any = built.run_round
    if program == "round":
        return run_round.lower(state, data, shared, key, rates)
    rates = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((_BLOCK,), x.dtype, sharding=x.sharding), rates
    )
    count = jax.ShapeDtypeStruct((), np.int32, sharding=rates.client.sharding)
    block: Any = in_blocks(run_round, _BLOCK)
    return block.lower(state, data, shared, key, rates, count)


def _contact_terms(parts: Parts) -> list[LossTerm]:
    return [term for term in parts.algorithm.terms if term.contact is not None]


def _first_contact(target: Target) -> jax.stages.Lowered:
    """Return what clients compute of a block of their images."""
    parts, _, mesh, arguments, each = target
    (term,) = _contact_terms(parts)
    assert term.contact is not None
    data, everywhere = arguments.data, replicated(mesh)
    from_host = parts.config.runtime.data_memory == "host"
    shared = arguments.shared[term.name][0]
    rows = placed(row_shapes(term.contact, shared, data), everywhere)
    count = min(data.labels.shape[0], parts.config.num_clients * each)
    together = mesh.devices.size * block_size(count)
    images, pixels = data.images, int(np.prod(data.image_shape))
    if from_host:
        images = jax.ShapeDtypeStruct((together, pixels), np.uint8, sharding=split(mesh))
    places = jax.ShapeDtypeStruct((together,), np.int32, sharding=everywhere)
    block = make_block(term.contact, mesh, data.image_shape, from_host)
    return block.lower(rows, shared, images, places, places)


def _reads_images(config: ExperimentConfig) -> bool:
    """Return whether a diffusion model does."""
    teacher = config.guidance.student.teacher
    return config.uses_anchors or (_distils(config) and teacher in ("diffusion", "random_unet"))


def _distils(config: ExperimentConfig) -> bool:
    settings = config.guidance.student
    return config.guidance.uses_student and not settings.is_bundled and settings.file is None


def _distillation(parts: Parts, topology: Topology) -> jax.stages.Lowered:
    """Return a step of the student's training, with a full batch, for the devices of one host."""
    config, student = parts.config, parts.student
    assert student is not None
    settings, clients = config.guidance.student, client_side(config, parts.federation.dataset)
    here = topology.of_one_host()
    init, step = make_training(
        network_in_training(clients, student.dim, here[0].platform),
        settings,
        clients.image_shape,
        config.augmentation,
        clients.mean,
        clients.std,
    )
    spread, whole = loop.placements(settings.batch_size, here)
    rows = (settings.batch_size,)
    labels = jax.ShapeDtypeStruct(rows, np.int32)
    targets = jax.ShapeDtypeStruct((*rows, student.dim), np.float32)
    batch = {
        "images": jax.ShapeDtypeStruct((*rows, *clients.image_shape), np.uint8),
        "targets": labels if settings.teacher == "labels" else targets,
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, key = placed((jax.eval_shape(init, key), key), whole)
    return jax.jit(step, donate_argnums=0).lower(state, placed(batch, spread), key)
