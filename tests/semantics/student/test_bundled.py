"""The students that come with the package: what they were made of, and whom they suit."""

import functools
import re

import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    ConfigError,
    ExperimentConfig,
    GuidanceConfig,
    ModelConfig,
    StudentConfig,
)
from semanticfl_jax.diffusion.fingerprint import BUNDLED_CHECKPOINTS, fingerprint
from semanticfl_jax.models import make_model
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.semantics.student.building import obtain_student
from semanticfl_jax.semantics.student.bundled import WIDTHS, bundled_student
from semanticfl_jax.semantics.student.checks import inexact_start
from semanticfl_jax.semantics.student.clients import ClientSide

DIRECTORY = BUNDLED_CHECKPOINTS["tiny-sd"]
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

of_width = functools.cache(lambda width: Student.load(bundled_student(ModelConfig(width=width))))


@pytest.mark.parametrize("width", WIDTHS)
def test_they_are_of_the_bundled_model_and_of_no_image_of_cifar(width):
    made = of_width(width).provenance
    assert made["teacher"] == "diffusion"
    assert made["checkpoint_sha256"] == fingerprint(DIRECTORY)
    assert made["images"] == "dataset:tiny_imagenet"
    assert made["model"]["width"] == width


def test_all_that_is_bundled_is_small():
    def size(directory):
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())

    assert size(DIRECTORY / "students") <= 1_000_000
    assert size(DIRECTORY) <= 14_000_000


@pytest.mark.parametrize(
    ("model", "width", "expected"),
    [
        (ModelConfig(width=8), 0, 8),
        (ModelConfig(width=10), 0, 8),
        (ModelConfig(width=64), 0, 16),
        (ModelConfig(width=64), 8, 8),
        (ModelConfig(name="cnn"), 0, 16),
    ],
)
def test_clients_get_the_nearest_width(model, width, expected):
    assert bundled_student(model, width).name == f"resnet10_width{expected}.safetensors"


def test_it_is_read_without_images_and_the_same_network_starts_from_it(tmp_path):
    guidance = GuidanceConfig(enabled=True, student=StudentConfig(enabled=True))
    config = ExperimentConfig(model=ModelConfig(width=16), guidance=guidance)
    clients = ClientSide(config, (8, 8, 3), MEAN, STD, ("a", "b"))
    student = obtain_student(clients, None, tmp_path, lambda line: None)
    assert not any(tmp_path.iterdir())
    shapes = make_model(config, 10, (8, 8, 3)).variables((8, 8, 3))
    assert student.fits(shapes)
    assert not of_width(8).fits(shapes)
    # It tells images apart, whatever their size.
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    seen = np.asarray(jax.jit(student.of_images)(student.variables, images))
    assert seen.shape == (3, student.dim)
    assert seen.std(axis=0).mean() > 0.05


@pytest.mark.parametrize(
    ("mean", "std", "said"),
    [
        ((0.31,) * 3, (0.32,) * 3, "mean 0.49, 0.48, 0.45 .* the clients' are by mean 0.31"),
        ((0.4914, 0.4822, 0.4465), (0.28, 0.24, 0.26), "its start is inexact"),
        ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616), None),
        ((0.48, 0.48, 0.43), (0.25, 0.25, 0.27), None),
    ],
)
def test_a_start_with_images_normalised_otherwise_is_told(mean, std, said):
    found = inexact_start(of_width(8), mean, std)
    assert found is None if said is None else re.search(said, found)


@pytest.mark.parametrize(
    "guidance", [{"checkpoint": "elsewhere"}, {"timestep": 50}, {"resolution": 64}]
)
def test_it_does_not_stand_for_another_teacher(guidance):
    with pytest.raises(ConfigError, match=r"student\.images must be public"):
        GuidanceConfig(enabled=True, student=StudentConfig(enabled=True), **guidance)
    made_then = StudentConfig(enabled=True, images="public")
    GuidanceConfig(enabled=True, student=made_then, **guidance)
