"""Random weights: their sizes, what they depend on, and which of a checkpoint's are replaced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.diffusion.random_weights import random_params, with_random_weights

SHAPES = {
    ("conv", "kernel"): (3, 3, 16, 32),
    ("conv", "bias"): (32,),
    ("norm", "scale"): (32,),
    ("tokens", "embedding"): (500, 32),
}


def test_leaves_have_the_deviation_of_their_kind():
    params = random_params(SHAPES, 0)
    kernel = params["conv"]["kernel"]
    assert kernel.shape == (3, 3, 16, 32)
    assert float(kernel.std()) * 144**0.5 == pytest.approx(1, abs=0.05)
    assert float(params["tokens"]["embedding"].std()) == pytest.approx(0.02, rel=0.05)
    np.testing.assert_array_equal(params["conv"]["bias"], np.zeros(32))
    np.testing.assert_array_equal(params["norm"]["scale"], np.ones(32))


def test_a_leaf_depends_on_seed_and_path_alone():
    kernel = random_params(SHAPES, 0)["conv"]["kernel"]
    alone = random_params({("conv", "kernel"): (3, 3, 16, 32)}, 0)["conv"]["kernel"]
    np.testing.assert_array_equal(alone, kernel)
    elsewhere = random_params({("other", "kernel"): (3, 3, 16, 32)}, 0)["other"]["kernel"]
    reseeded = random_params(SHAPES, 1)["conv"]["kernel"]
    for other in (elsewhere, reseeded):
        assert abs(np.corrcoef(np.ravel(kernel), np.ravel(other))[0, 1]) < 0.1
    halved = random_params(SHAPES, 0, jnp.bfloat16)["conv"]["kernel"]
    np.testing.assert_array_equal(halved, kernel.astype(jnp.bfloat16))


def test_only_the_named_components_are_replaced(sd1):
    sd, _ = sd1
    found = with_random_weights(sd, ("unet",), 0)
    assert found.params["vae"] is sd.params["vae"]
    assert found.params["text_encoder"] is sd.params["text_encoder"]
    for drawn, given in zip(*map(jax.tree.leaves, (found.params, sd.params)), strict=True):
        assert (drawn.shape, drawn.dtype) == (given.shape, given.dtype)
    assert jax.tree.structure(found) == jax.tree.structure(sd)
    drawn, given = (each.params["unet"]["conv_in"]["kernel"] for each in (found, sd))
    assert abs(np.corrcoef(np.ravel(drawn), np.ravel(given))[0, 1]) < 0.2


def test_mistakes_are_named(sd1):
    with pytest.raises(ValueError, match="components: must be among vae, unet, text_encoder"):
        with_random_weights(sd1[0], ("scheduler",), 0)
    with pytest.raises(ValueError, match="a/gamma: no rule"):
        random_params({("a", "gamma"): (3,)}, 0)
