"""The student as a file and as a network: parity after loading, and what clients take from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.errors import MissingFileError, SemanticFLError
from semanticfl_jax.semantics.student import Student
from semanticfl_jax.simulation.initial_weights import replace_weights
from semanticfl_jax.weight_files import named_leaves
from tests.federation import TinyNet
from tests.students import DIM, MEAN, STD, make_student

IMAGES = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)


def test_it_sees_the_same_after_saving_and_loading(tmp_path):
    student = make_student(provenance={"teacher": "diffusion"})
    student.save(tmp_path / "a.safetensors")
    loaded = Student.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(student.outputs(IMAGES), loaded.outputs(IMAGES))
    assert loaded.provenance == {"teacher": "diffusion"}
    assert all(leaf.dtype == np.float16 for leaf in jax.tree.leaves(loaded.variables))


def test_what_it_sees_is_its_network_in_evaluation_mode(tmp_path):
    student = make_student()
    normalized = (IMAGES / 255 - np.array(MEAN)) / np.array(STD)
    variables = jax.tree.map(lambda x: np.asarray(x, np.float32), student.variables)
    module = TinyNet(DIM)
    expected = module.apply(variables, jnp.asarray(normalized, jnp.float32), train=False).logits
    np.testing.assert_allclose(student.outputs(IMAGES), expected, rtol=1e-3, atol=1e-4)
    # An image's output does not depend on the others, nor on how many there are.
    np.testing.assert_allclose(student.outputs(IMAGES[5:6])[0], expected[5], rtol=1e-3, atol=1e-4)


def test_images_of_another_size_are_resized():
    student = make_student()
    smaller = IMAGES[:5, ::2, ::2]
    # Doubling bilinearly: three quarters of the nearer pixel and a quarter of the other, at borders
    # the nearer alone.
    nearer = np.repeat(np.arange(4), 2)
    other = np.clip(nearer + np.tile([-1, 1], 4), 0, 3)
    weights = np.zeros((8, 4))
    np.add.at(weights, (np.arange(8), nearer), 0.75)
    np.add.at(weights, (np.arange(8), other), 0.25)
    doubled = np.einsum("ij,bjkc,lk->bilc", weights, smaller, weights)
    expected = student.of_images(student.variables, jnp.asarray(doubled, jnp.float32))
    np.testing.assert_allclose(student.outputs(smaller), expected, rtol=1e-3, atol=1e-4)


def test_all_but_the_output_layer_can_be_started_from(tmp_path):
    student, other = make_student(), TinyNet(9)
    drawn = other.init(jax.random.key(5), jnp.zeros((1, 8, 8, 3)), train=False)
    params = {"model": drawn["params"], "guidance": {}}
    started = replace_weights(Model(params, drawn["batch_stats"]), student.start)
    assert student.output_leaves == ("Dense_0/bias", "Dense_0/kernel")
    own, given = named_leaves(started.params["model"]), named_leaves(student.variables["params"])
    for name, leaf in own.items():
        if name in student.output_leaves:
            np.testing.assert_array_equal(leaf, named_leaves(drawn["params"])[name])
        else:
            np.testing.assert_array_equal(leaf, given[name].astype(np.float32))
    for leaf, expected in zip(
        jax.tree.leaves(started.batch_stats),
        jax.tree.leaves(student.variables["batch_stats"]),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf, expected.astype(np.float32))
    head = student.variables["params"]["Dense_0"]
    np.testing.assert_array_equal(student.head["kernel"], head["kernel"].astype(np.float32))


def test_another_architecture_cannot_start_from_it():
    other = TinyNet(4, feature_dim=7)
    drawn = other.init(jax.random.key(5), jnp.zeros((1, 8, 8, 3)), train=False)
    with pytest.raises(
        SemanticFLError, match=r"the student: params/BatchNorm_0/bias must be \[7\]"
    ):
        drawn_model = Model({"model": drawn["params"]}, drawn["batch_stats"])
        replace_weights(drawn_model, make_student().start, "the student")


def test_files_that_hold_no_student_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"guidance\.student\.file"):
        Student.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(SemanticFLError, match="damaged"):
        Student.load(tmp_path / "bad.safetensors")
