"""Plans of runs with a student, beside runs whose student is at hand and arithmetic by hand."""

import dataclasses

import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    GuidanceConfig,
    ModelConfig,
    PartitionConfig,
    StudentConfig,
)
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.planning.chips import CHIPS
from semanticfl_jax.planning.floors import find_floors
from semanticfl_jax.planning.images import KNOWN
from semanticfl_jax.planning.plan import make_plan
from semanticfl_jax.planning.programs import default_programs
from semanticfl_jax.planning.report import table, values
from semanticfl_jax.planning.shapes import make_arguments, make_shapes
from semanticfl_jax.planning.topology import make_topology
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.semantics.student.building import network_in_training
from semanticfl_jax.semantics.student.bundled import WIDTHS, bundled_student
from semanticfl_jax.simulation.parts import make_parts
from semanticfl_jax.simulation.prepare import place
from semanticfl_jax.simulation.student import client_side
from tests.federation import noise_images
from tests.planning.accelerators import ACCELERATORS
from tests.planning.test_plan import CONFIG, IMAGES
from tests.students import TWO_LAYERS, make_student

PIXELS, DIM, FEATURES, INPUTS = 8 * 8 * 3, 3, 5, 12
PLAIN = dataclasses.replace(CONFIG, model=TWO_LAYERS, partition=PartitionConfig(scheme="iid"))
# The term's head, and the student, a network of two layers: bias beside kernel, and running means.
HEAD = DIM * (FEATURES + 1)
WEIGHTS = FEATURES * (INPUTS + 1) + HEAD
STUDENT_BYTES = 2 * (WEIGHTS + INPUTS)


def with_student(config=PLAIN, **settings):
    """A run that makes its student, of images and by a diffusion model that do not exist."""
    own = {"images": "directory", "data_dir": "nowhere", "dim": DIM}
    own |= {} if "file" in settings else {"batch_size": 8}
    student = StudentConfig(enabled=True, **{**own, **settings})
    teacher = {"checkpoint": "nowhere"} if student.teacher == "diffusion" else {}
    guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=student, **teacher)
    return dataclasses.replace(config, guidance=guidance)


def bundled(config=PLAIN, **settings):
    student = StudentConfig(enabled=True, **settings)
    guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=student)
    return dataclasses.replace(config, guidance=guidance)


def forms(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@pytest.fixture(scope="module")
def plan_of():
    """Plan for two CPU devices, in silence."""

    def plan_of(config, *programs):
        silent = {"programs": programs, "say": lambda line: None}
        return make_plan(config, make_topology("cpu:2"), IMAGES, 4, **silent)

    return plan_of


@pytest.fixture(scope="module")
def planned(plan_of):
    """The plan of a run whose targets are computed once."""
    return plan_of(with_student(), "round", "first_contact", "distillation")


def arguments(plan):
    return {each.program: each.memory.arguments for each in plan.programs}


def test_what_is_planned_is_what_a_run_has_on_its_devices(planned):
    config, mesh = with_student(), make_topology("cpu:2").mesh
    federation = make_federation(noise_images(64, 16), config)
    parts = make_parts(config, federation, student=make_student(TWO_LAYERS))
    real = place(parts, mesh, None)
    found = make_arguments(make_shapes(config, IMAGES), IMAGES, 4, mesh)
    for name in ("state", "data", "shared", "test"):
        assert forms(getattr(found, name)) == forms(getattr(real, name))
        shardings = [
            [leaf.sharding for leaf in jax.tree.leaves(getattr(each, name))]
            for each in (found, real)
        ]
        assert shardings[0] == shardings[1]
    # The rows are there, and the network starts from the student in both.
    assert forms(found.shared["student"][1]) == {"targets": ((64, DIM), np.float16)}
    assert parts.starts_from_student and planned.starts_from_student
    sent = make_traffic(parts.algorithm, real.state, real.data)
    assert (planned.traffic.up, planned.traffic.down) == (sent.up, sent.down)
    np.testing.assert_array_equal(planned.traffic.down_once, sent.down_once)
    assert set(sent.down_once) == {STUDENT_BYTES}


def test_a_round_holds_targets_or_the_student(planned, plan_of):
    plain = arguments(plan_of(PLAIN, "round"))["round"]
    assert arguments(planned)["round"] - plain == 64 * DIM * 2 + 4 * HEAD
    each_step = plan_of(with_student(targets="each_step"), "round")
    assert arguments(each_step)["round"] - plain == STUDENT_BYTES + 4 * HEAD


def test_the_program_of_the_first_contact(planned):
    # Targets, student, all images, and for each of two devices' 64 images two numbers.
    expected = 64 * DIM * 2 + STUDENT_BYTES + 64 * PIXELS + 2 * 2 * 64 * 4
    assert arguments(planned)["first_contact"] == expected
    compiled = planned.programs[1]
    # What a device computed goes to the other; every device keeps all of it.
    assert compiled.memory.results == 0  # it takes the place of what there was
    assert set(compiled.counted()) <= {"all-gather", "all-reduce"}
    assert not compiled.host_transfers


def test_the_program_of_the_distillation(planned):
    # Weights and AdamW's two moments of them, running means, and two counters of steps; half a
    # batch on each device, with float32 targets. Nothing is drawn at random here.
    expected = 4 * (3 * WEIGHTS + INPUTS + 2) + 4 * (PIXELS + 4 * DIM)
    assert arguments(planned)["distillation"] == expected
    assert set(planned.programs[2].counted()) == {"all-reduce"}


def test_a_plan_says_what_is_of_the_student(planned):
    text = "\n".join(table([planned]))
    assert "| cpu:2 | first_contact | canonical | 1 |" in text
    assert "cpu:2: the clients' network starts from the student" in text
    assert "at the first contact, once for all clients' images" in text
    told = values(planned)
    assert told["client_bytes"]["down_once"] == STUDENT_BYTES
    assert told["starts_from_student"] is True


def test_floors_have_the_students_forward_pass():
    def floors(config):
        return find_floors(make_shapes(config, IMAGES), 4, CHIPS["v5e"], 4)

    # A student of one dense layer: a product, a sum and a bias for each of its outputs.
    linear = {"model": "linear", "init": False}
    forward = DIM * (2 * PIXELS + 1)
    plain = floors(PLAIN)
    once, each_step = (floors(with_student(targets=t, **linear)) for t in ("once", "each_step"))
    assert (plain.contact_flops, each_step.contact_flops) == (0, 0)
    assert once.flops == plain.flops
    assert once.contact_flops == 64 * forward
    # A chip sees 16 of the 64 images, and keeps all targets.
    moved = 16 * PIXELS + 64 * DIM * 2
    np.testing.assert_allclose(once.contact_seconds, max(16 * forward / 197e12, moved / 819e9))
    # 4 clients see their 4 images twice.
    np.testing.assert_allclose(each_step.flops - plain.flops, 4 * 2 * 4 * forward, rtol=1e-9)
    # The head is read and written in each of 4 steps, as its momentum; the targets are read.
    copies = 2 if PLAIN.momentum == 0 else 4
    assert each_step.bytes - plain.bytes == 4 * copies * 4 * HEAD
    assert once.bytes - each_step.bytes == 4 * 2 * DIM * 2


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bundled_students_are_known_without_their_files(width):
    model = ModelConfig(width=width)
    config = bundled(dataclasses.replace(PLAIN, model=model))
    parts = make_shapes(config, KNOWN["cifar10"])
    there = Student.load(bundled_student(model))
    assert forms(parts.student.variables) == forms(there.variables)
    for name in ("model", "image_shape", "dim"):
        assert parts.student.about[name] == there.about[name]
    assert parts.starts_from_student
    other = bundled(dataclasses.replace(PLAIN, model=ModelConfig(name="cnn")))
    assert not make_shapes(other, KNOWN["cifar10"]).starts_from_student
    assert default_programs(config) == ("round", "evaluation", "first_contact")


def test_a_file_is_read_if_it_is_there(tmp_path):
    path = tmp_path / "student.safetensors"
    config = with_student(file=str(path))
    absent = make_shapes(config, IMAGES).student
    make_student(TWO_LAYERS, dim=DIM + 1).save(path)
    assert (absent.dim, make_shapes(config, IMAGES).student.dim) == (DIM, DIM + 1)
    assert default_programs(config) == ("round", "evaluation", "first_contact")


def test_a_control_without_targets_is_a_start_alone():
    config = with_student(control="labels", images="dataset:cifar100", dim=128)
    parts = make_shapes(config, IMAGES)
    assert parts.student.dim == 100
    assert parts.algorithm.terms == ()
    assert default_programs(config) == ("round", "evaluation", "distillation")


def test_convolutions_are_lowered_for_the_devices_that_are_planned_for():
    config = bundled(dataclasses.replace(PLAIN, model=ModelConfig(width=8)))
    for platform, lowering in (("cpu", "canonical"), ("tpu", "native")):
        parts = make_shapes(config, KNOWN["cifar10"], platform)
        assert parts.student.network.module.lowering == lowering
        clients = client_side(config, parts.federation.dataset)
        assert network_in_training(clients, 3, platform).module.lowering == lowering


def test_what_a_run_has_not_is_refused(plan_of):
    with pytest.raises(SemanticFLError, match="first_contact needs one term"):
        plan_of(with_student(targets="each_step"), "first_contact")
    with pytest.raises(SemanticFLError, match="distillation needs a run that makes its student"):
        plan_of(with_student(file="student.safetensors"), "distillation")
    with pytest.raises(SemanticFLError, match=r"targets must be once .* images of \[32, 32, 3\]"):
        plan_of(bundled(targets="each_step"), "round")
    with pytest.raises(SemanticFLError, match=r"guidance\.student\.init .* the student"):
        plan_of(bundled(init=True), "round")


@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_programs_of_a_student_compile_for_an_accelerator(name):
    topology = make_topology(name)
    own = dataclasses.replace(PLAIN, model=ModelConfig(name="cnn"))
    programs = ("round", "first_contact", "distillation")
    plan = make_plan(
        with_student(own), topology, IMAGES, 4, programs=programs, say=lambda line: None
    )
    for compiled in plan.programs:
        assert compiled.failed is None
        assert compiled.conv == "native"
        assert compiled.fits(topology.memory)
        assert not compiled.host_transfers
    # A device gets the targets that others computed, and nothing larger.
    contact = plan.programs[1]
    gathered = sum(each.bytes for each in contact.collectives if each.kind != "all-reduce")
    assert gathered <= 4 * 64 * 4 * DIM
