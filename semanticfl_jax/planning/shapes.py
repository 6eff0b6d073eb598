"""A run as shapes: everything that its programs take, without images, weights or devices."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, Sharding

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.corruptions import Corruptions
from semanticfl_jax.data.federated import Batch, FederatedDataset
from semanticfl_jax.data.federation import Federation
from semanticfl_jax.data.modality import draw_modalities
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.devices.mesh import replicated, split
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.client_rows import sharding
from semanticfl_jax.federated.client_update import init_state
from semanticfl_jax.federated.first_contact import with_row_shapes
from semanticfl_jax.federated.rates import Rates
from semanticfl_jax.federated.server_state import ServerState, init_server
from semanticfl_jax.planning.images import Images
from semanticfl_jax.planning.student import planned_student
from semanticfl_jax.randomness import run_key
from semanticfl_jax.semantics.anchors import Anchors
from semanticfl_jax.simulation.parts import Parts, make_network, make_parts
from semanticfl_jax.types import PyTree

# Words of a text anchor: of Stable Diffusion 1.5's text tower.
_TEXT_DIM = 768


class Arguments(NamedTuple):
    """Shapes, with shardings, of what a round takes; `test` is what an evaluation takes."""

    state: ServerState
    data: FederatedDataset
    shared: PyTree
    key: Any
    rates: Rates
    test: Batch


def make_shapes(config: ExperimentConfig, images: Images, platform: str = "cpu") -> Parts:
    """Return what a run trains, on images that take no memory; only their shapes are to be used.

    Anchors and the student, where the run uses them, are zeros of the shapes that they would have.

    Args:
      config: of the run.
      images: how many of what size.
      platform: of the devices that are planned for.

    Raises:
      SemanticFLError: for a task without classes, asynchronous rounds, or a student that clients
        could not use.
    """
    if config.task != "classification":
        raise SemanticFLError(f"task must be classification to be planned, got {config.task!r}")

    def zeros(*shape: int, dtype: Any) -> np.ndarray:
        return np.broadcast_to(np.zeros((), dtype), shape)

    if config.asynchronous.enabled:
        raise SemanticFLError(
            "asynchronous.enabled must be false in a plan: who reports when depends on the "
            "partition, which a plan does not look at"
        )
    picture = (images.side, images.side, 3)
    dataset = ImageDataset(
        name=config.dataset,
        train_images=zeros(images.train, *picture, dtype=np.uint8),
        train_labels=zeros(images.train, dtype=np.int32),
        test_images=zeros(images.test, *picture, dtype=np.uint8),
        test_labels=zeros(images.test, dtype=np.int32),
        class_names=tuple(f"class {number}" for number in range(images.classes)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    # The partition is never looked at: `make_arguments` says how many images a client has.
    nobody = Partition(np.zeros(1, np.int32), np.array([0, 1]))
    uncorrupted = Corruptions((None,), np.zeros(1, np.float32))
    holders = draw_modalities(config.modality, config.num_clients, config.seed)
    public = np.zeros(images.classes * config.public_per_class, np.int64)
    federation = Federation(dataset, dataset, public, nobody, uncorrupted, holders)
    anchors = None
    if config.uses_anchors:
        features = make_network(config, federation).outputs(picture).features
        width = (images.classes, features.shape[-1])
        texts = np.zeros((images.classes, _TEXT_DIM), np.float32)
        anchors = Anchors(np.zeros(width, np.float32), texts, dataset.class_names, {}, {}, 0)
    student = None
    if config.guidance.uses_student:
        student = planned_student(config, dataset, platform)
    return make_parts(config, federation, anchors, student=student)


def make_arguments(parts: Parts, images: Images, each: int, mesh: Mesh) -> Arguments:
    """Return the shapes of a round's and an evaluation's arguments.

    Args:
      parts: of `make_shapes`.
      images: of the run.
      each: images of every client.
      mesh: the devices.
    """
    config, algorithm = parts.config, parts.algorithm
    everywhere, number = replicated(mesh), config.num_clients
    key = jax.eval_shape(lambda: run_key(0))
    model = parts.model_shapes
    state = jax.eval_shape(lambda model: init_server(model, algorithm, number), model)
    one = jax.eval_shape(lambda model: init_state(algorithm, model), model)
    clients: PyTree = jax.tree.map(lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), one)
    clients = placed(clients, sharding(mesh, number))
    state = placed(state, everywhere)._replace(clients=clients if jax.tree.leaves(one) else ())
    side, int32 = images.side, np.int32
    data = FederatedDataset(
        images=_shape((images.train, side * side * 3), np.uint8),
        labels=_shape((images.train,), int32),
        indices=_shape((number * each,), int32),
        offsets=_shape((number,), int32),
        sizes=_shape((number,), int32),
        label_counts=_shape((number, images.classes), int32),
        max_size=each,
        image_shape=(side, side, 3),
    )
    rows, devices = config.runtime.eval_batch_size, mesh.devices.size
    batches = -(-images.test // (rows * devices)) * devices
    test = Batch(
        _shape((batches, rows, side, side, 3), np.uint8),
        _shape((batches, rows), int32),
        _shape((batches, rows), bool),
    )
    rate = _shape((), np.float32)
    sent = jax.tree.map(np.asarray, algorithm.sent_once)
    return Arguments(
        state=state,
        data=placed(data, everywhere),
        shared=placed(with_row_shapes(algorithm, sent, data), everywhere),
        key=placed(key, everywhere),
        rates=placed(Rates(rate, rate), everywhere),
        test=placed(test, split(mesh)),
    )


_shape = jax.ShapeDtypeStruct


def placed(tree: PyTree, where: Sharding) -> PyTree:
    """Return the shapes of a tree's arrays, with a sharding."""
    return jax.tree.map(partial(_as_placed, where=where), tree)


def _as_placed(x: Any, where: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
