"""Runs with a student: what leaves the clients, resuming, devices, controls, modality."""

import dataclasses
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest

from semanticfl_jax.config import (
    AlgorithmConfig,
    ConfigError,
    ExperimentConfig,
    GuidanceConfig,
    ModalityConfig,
    ModelConfig,
    RuntimeConfig,
    StudentConfig,
)
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.sources import ImageDataset, load_dataset
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import device_mesh
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.semantics.building import checkpoint_directory
from semanticfl_jax.semantics.student.clients import expected_provenance
from semanticfl_jax.semantics.student.images import StudentImages
from semanticfl_jax.simulation import student as module
from semanticfl_jax.simulation.experiment import Simulation, run
from semanticfl_jax.simulation.setting_up import Given, set_up
from semanticfl_jax.simulation.student import client_side
from tests.federation import CLASSES, TinyNet, noise_images
from tests.students import TWO_LAYERS, make_student

CONFIG = ExperimentConfig(
    model=TWO_LAYERS,
    num_clients=6,
    clients_per_round=4,
    rounds=3,
    local_epochs=1,
    batch_size=8,
    public_per_class=2,
    augmentation=(),
    runtime=RuntimeConfig(num_devices=1, eval_batch_size=16),
)


@pytest.fixture(scope="module")
def world():
    """A data set of noise."""
    return noise_images()


@pytest.fixture(scope="module")
def config_of(world, tmp_path_factory):
    """A configuration with a student that is made already, of images that are not at hand."""
    directory = tmp_path_factory.mktemp("students")

    def config_of(base=CONFIG, **settings):
        path = directory / f"{settings.get('control')}.safetensors"
        student = StudentConfig(enabled=True, images="directory", file=str(path), dim=3, **settings)
        guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=student)
        config = dataclasses.replace(base, guidance=guidance)
        if not path.exists():
            checkpoint = checkpoint_directory(guidance)
            clients = client_side(config, world)
            provenance = expected_provenance(clients, None, checkpoint)
            make_student(TWO_LAYERS, provenance=provenance).save(path)
        return config

    return config_of


@pytest.fixture(scope="module")
def train(world):
    """Train and return the result, in silence; equal configurations once."""
    done = {}

    def train(config, workdir=None, **options):
        key = (repr(config), workdir)
        if key not in done or options:
            done[key] = run(config, workdir, dataset=world, progress=False, say=None, **options)
        return done[key]

    return train


def leaves(result):
    return {"params": result.params, "batch_stats": result.batch_stats}


def test_an_impossible_probe_is_refused_before_the_student_is_made(world):
    module.check_probe(world, 10**6, 10)
    with pytest.raises(ConfigError, match=r"probe_images must be larger"):
        module.check_probe(world, 3, 10)


def test_no_image_and_no_feature_of_a_client_leaves_it(world, config_of, train, tmp_path):
    config = config_of()
    with Simulation(config, dataset=world, progress=False, say=None) as simulation:
        traffic, parts = simulation.engine.traffic, simulation.parts
        model = simulation.engine.state.model
        simulation.run()
        rows = simulation.history
    # Up goes the model, with the term's head, and nothing else, in the first contact neither.
    assert traffic.up == size_in_bytes(model)
    assert traffic.up_once == 0
    reported = [CONFIG.clients_per_round] * CONFIG.rounds
    assert [row["bytes_up"] for row in rows] == [traffic.up * count for count in reported]
    # Down goes the student, once to each client, and no targets.
    student = parts.student
    np.testing.assert_array_equal(traffic.down_once, size_in_bytes(student.variables))
    # What the student was made of does not hold the clients' images or labels.
    fields = set(student.provenance)
    assert not {"data", "partition", "client_images"} & fields
    assert student.provenance["images"] == "directory"
    assert config.private


def test_a_student_is_not_distilled_on_the_clients_own_images(world):
    student = StudentConfig(enabled=True, images="dataset:digits", control="labels")
    guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=student)
    config = dataclasses.replace(CONFIG, guidance=guidance)
    own = dataclasses.replace(config, dataset="digits")
    with pytest.raises(ConfigError, match=r"dataset:digits: clients have 1,4\d\d of these 1,437"):
        run(own, progress=False, say=None)
    made = dataclasses.replace(student, file="made.safetensors", control="none")
    given = dataclasses.replace(guidance, student=made)
    with pytest.raises(ConfigError, match="was distilled on the clients' own data set"):
        run(dataclasses.replace(own, guidance=given), progress=False, say=None)
    # By what they show, whatever they are called: the public ones alone are the server's.
    digits = load_dataset("digits", None)
    federation = make_federation(dataclasses.replace(digits, name="others"), own)
    images = StudentImages("directory", digits.train_images[federation.public], None)
    module._refuse_clients_images(images, federation)
    images = StudentImages("directory", digits.train_images[:1], None)
    client = dataclasses.replace(federation, public=np.arange(1, 21))
    with pytest.raises(ConfigError, match="clients have 1 of these 1 images"):
        module._refuse_clients_images(images, client)
    module._refuse_clients_images(images, make_federation(world, config))


def test_a_probe_is_fitted_to_all_classes_though_images_come_class_by_class(monkeypatch):
    monkeypatch.setattr(module, "_PROBED", 60)
    fitted, figures = [], {"linear": 1.0, "knn": 1.0}
    monkeypatch.setattr(module, "assess", lambda seen, split: fitted.append(split) or figures)
    labels = np.repeat(np.arange(10), 10)
    sees = SimpleNamespace(outputs=lambda images: images[:, 0, 0].astype(np.float32))
    images = np.zeros((100, 8, 8, 3), np.uint8)
    rows, held = np.delete(np.arange(100), np.s_[::10]), np.arange(0, 100, 10)
    assert module.probe_held_out(sees, images, labels, rows, held)["held_out_linear"] == 1.0
    (split,) = fitted
    for labels in (split.train_labels, split.test_labels):
        assert np.unique(labels).tolist() == list(range(10))
    assert len(split.train_labels) == 60


def test_the_server_reads_nothing_but_the_public_split(world, config_of):

    guidance = GuidanceConfig(enabled=True, student=StudentConfig(enabled=True, images="public"))
    config = dataclasses.replace(CONFIG, guidance=guidance)
    federation = make_federation(world, config)
    images = module._images(config, federation)
    np.testing.assert_array_equal(images.images, world.train_images[federation.public])
    assert not np.isin(federation.public, federation.partition.indices).any()
    # Other images of the clients, the same public ones: the provenance, by which the student is
    # found, is the same.
    changed = world.train_images.copy()
    changed[federation.partition.indices] = 255 - changed[federation.partition.indices]
    other = make_federation(dataclasses.replace(world, train_images=changed), config)
    clients = client_side(config, federation.dataset)
    one, two = (
        expected_provenance(clients, module._images(config, each), None)
        for each in (federation, other)
    )
    assert one == two
    assert one["image_count"] == 2 * CLASSES


@pytest.mark.parametrize(
    ("targets", "devices", "chunk"),
    [("once", 1, 4), ("once", 2, 2), ("once", 8, 1), ("each_step", 2, 2)],
)
def test_chunks_and_devices_do_not_change_the_result(config_of, train, targets, devices, chunk):
    config = config_of(targets=targets)
    runtime = dataclasses.replace(CONFIG.runtime, num_devices=devices, clients_per_chunk=chunk)
    result = train(dataclasses.replace(config, runtime=runtime))
    chex.assert_trees_all_close(leaves(result), leaves(train(config)), rtol=1e-4, atol=1e-5)


def test_a_run_that_is_resumed_ends_with_the_same_bits(world, config_of, train, tmp_path):
    config = config_of()
    with Simulation(config, dataset=world, workdir=tmp_path, progress=False, say=None) as first:
        for step in first:
            if step.round == 2:
                break
    resumed = train(config, tmp_path)
    assert [row["round"] for row in resumed.history] == [1, 2, 3]
    chex.assert_trees_all_equal(leaves(resumed), leaves(train(config)))


def test_controls_differ_from_the_student_and_from_one_another(config_of, train):
    results = [train(config_of())]
    results += [
        train(config_of(control=name)) for name in ("permuted", "start_only", "target_only")
    ]
    results.append(train(CONFIG))
    classifiers = [result.params["head"]["kernel"] for result in results]
    for index, one in enumerate(classifiers):
        assert all(np.abs(one - other).max() > 1e-5 for other in classifiers[:index])


def test_without_weight_and_start_a_run_is_the_unguided_one(config_of, train):
    chex.assert_trees_all_equal(
        leaves(train(config_of(weight=0.0, init=False))), leaves(train(CONFIG))
    )


def test_the_start_is_the_students(world, config_of):
    with Simulation(config_of(), dataset=world, progress=False, say=None) as simulation:
        params = jax.device_get(simulation.state.params)
    own = make_student(TWO_LAYERS).variables["params"]
    np.testing.assert_array_equal(
        params["model"]["base"]["kernel"], own["base"]["kernel"].astype(np.float32)
    )
    np.testing.assert_array_equal(params["student"]["kernel"], own["head"]["kernel"])


def test_clients_without_the_student_are_not_sent_it_and_have_no_targets(world, config_of, train):
    half = dataclasses.replace(config_of(), modality=ModalityConfig(without_student=0.5))
    with Simulation(half, dataset=world, progress=False, say=None) as simulation:
        sent = simulation.engine.traffic.down_once
        size = size_in_bytes(simulation.parts.student.variables)
    assert sorted(sent) == [0] * 3 + [size] * 3
    nobody = dataclasses.replace(config_of(), modality=ModalityConfig(without_student=1.0))
    start_only = train(config_of(control="start_only"))
    alone = train(nobody)
    chex.assert_trees_all_close(leaves(alone), leaves(start_only), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["scaffold", "moon", "feddyn", "fedadam"])
def test_it_goes_with_other_algorithms(config_of, train, name):
    base = dataclasses.replace(CONFIG, algorithm=AlgorithmConfig(name=name))
    with_student, without = train(config_of(base)), train(base)
    assert np.isfinite([row["train_loss"] for row in with_student.history]).all()
    one, two = (result.params["head"]["kernel"] for result in (with_student, without))
    assert np.abs(one - two).max() > 1e-5


def test_what_does_not_fit_is_refused(world, config_of, train):
    config = config_of()
    with pytest.raises(ConfigError, match=r"guidance\.student\.init must be false"):
        run(config, dataset=world, say=None, init_params=train(CONFIG).params)
    with pytest.raises(SemanticFLError, match=r"dim: 3 != 4"):
        student = dataclasses.replace(config.guidance.student, dim=4)
        guidance = dataclasses.replace(config.guidance, student=student)
        run(dataclasses.replace(config, guidance=guidance), dataset=world, say=None)
    wide = ImageDataset.from_arrays(
        np.repeat(world.train_images, 2, axis=1).repeat(2, axis=2),
        world.train_labels,
        np.repeat(world.test_images, 2, axis=1).repeat(2, axis=2),
        world.test_labels,
    )
    with pytest.raises(SemanticFLError, match=r"targets must be once .* images of \[8, 8, 3\]"):
        run(config_of(targets="each_step"), dataset=wide, say=None)
    student = dataclasses.replace(config.guidance.student, file=None, images="public")
    guidance = dataclasses.replace(config.guidance, student=student)
    with pytest.raises(ConfigError, match=r"guidance\.student\.model must name a network"):
        own = dataclasses.replace(CONFIG, guidance=guidance)
        run(own, dataset=world, say=None, model=TinyNet(CLASSES))


@pytest.mark.parametrize("as_cifar", [False, True])
def test_a_start_is_told_to_be_inexact_where_images_are_normalised_otherwise(as_cifar):
    """Of digits, for whose images the bundled student was not made; nothing is compiled."""
    guidance = GuidanceConfig(
        enabled=True, lambda_kd=0, lambda_con=0, student=StudentConfig(enabled=True)
    )
    config = ExperimentConfig(
        dataset="digits", augmentation=(), model=ModelConfig(width=8), guidance=guidance
    )
    dataset, lines = load_dataset("digits", None), []
    if as_cifar:
        moments = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)}
        dataset = dataclasses.replace(dataset, **moments)
    set_up(Given(config, dataset), device_mesh(jax.devices()[:1], "clients"), None, lines.append)
    text = " ".join(lines)
    assert "network starts from the student" in text
    assert ("its start is inexact" in text) != as_cifar
