"""A run's student as shapes: no file, no image and no diffusion model decides what a run computes.

The bundled student is known by the clients' network; one that a run makes, by its configuration. A
file is read if it is there, for it alone may know the network; else it is taken to hold what the
configuration would make.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from semanticfl_jax.config import ExperimentConfig, ModelConfig, to_dict
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.models import make_model
from semanticfl_jax.models.client_conv import choose_lowering
from semanticfl_jax.models.flops import forward_flops
from semanticfl_jax.planning.images import KNOWN
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.semantics.student.bundled import DIM, IMAGE_SHAPE, bundled_network
from semanticfl_jax.semantics.student.checks import check_fits
from semanticfl_jax.simulation.student import client_side


def planned_student(config: ExperimentConfig, dataset: ImageDataset, platform: str) -> Student:
    """Return a student of the shapes that a run's would have.

    Args:
      config: of the run.
      dataset: the clients', whose shapes alone count.
      platform: of the devices that are planned for, by which its convolutions are lowered.

    Raises:
      SemanticFLError: if clients could not use it with their images.
    """
    clients, settings = client_side(config, dataset), config.guidance.student
    conv = choose_lowering(platform)
    # The data set's normalisation is not known, and taken to be the student's.
    moments = {"mean": list(dataset.mean), "std": list(dataset.std)}
    if settings.file is not None and Path(settings.file).exists():
        read = Student.load(settings.file)
        student = Student(read.variables, {**read.about, **moments}, conv)
    elif settings.is_bundled:
        network = bundled_network(config.model, settings.width)
        student = _of_shapes(network, IMAGE_SHAPE, DIM, moments, conv)
    else:
        outputs = settings.dim
        if settings.teacher == "labels":  # classes of the images that it is distilled on
            known = KNOWN.get(settings.dataset or "")
            outputs = dataset.num_classes if known is None else known.classes
        student = _of_shapes(clients.model, clients.image_shape, outputs, moments, conv)
    check_fits(student, clients)
    return student


def _of_shapes(
    network: ModelConfig,
    image_shape: tuple[int, ...],
    outputs: int,
    moments: dict[str, list[float]],
    conv: str,
) -> Student:
    """Return a student of zeros that take no memory."""
    made = make_model(ExperimentConfig(model=network), outputs, image_shape)
    shapes = {"batch_stats": {}, **made.variables(image_shape)}
    zero = np.zeros((), np.float16)
    variables = jax.tree.map(lambda x: np.broadcast_to(zero, x.shape), shapes)
    about = {"model": to_dict(network), "image_shape": list(image_shape), "dim": outputs}
    return Student(variables, {**about, **moments, "provenance": {}, "measured": {}}, conv)


def target_flops(student: Student, rows: int) -> float:
    """Return the floating-point operations of one target, of `rows` that are computed at once."""
    native = Student(student.variables, student.about, conv="native")
    return forward_flops(native.network, student.image_shape, rows)
