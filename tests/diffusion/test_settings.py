"""What a checkpoint's configurations say of it."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import ConfigError
from semanticfl_jax.diffusion.features import available_maps, pooled_maps
from semanticfl_jax.diffusion.settings import check_settings, map_channels
from semanticfl_jax.diffusion.stable_diffusion import load


@pytest.fixture
def copy(goldens, tmp_path):
    return shutil.copytree(goldens / "sd1", tmp_path / "sd")


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_maps_have_the_channels_that_the_networks_give(goldens, name):
    sd = load(goldens / name)
    maps = available_maps(sd)
    found = jax.eval_shape(
        lambda *rows: pooled_maps(sd, *rows, timestep=0, maps=maps, resolution=sd.image_size),
        jnp.zeros((1, *sd.text([""])[0].shape[1:])),
        jax.random.key(0),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros(1, int),
        np.zeros(1, int),
    )
    assert map_channels(goldens / name) == {name: found[name].shape[1] for name in maps}


def test_maps_are_named_by_the_field_that_asks_for_them(goldens):
    sd1 = goldens / "sd1"
    check_settings(sd1, ("vae", "up_3"), 32)
    with pytest.raises(ValueError, match=r"guidance\.student\.maps must be among vae, .*'up_9'"):
        check_settings(sd1, ("up_9",), 0, "guidance.student.maps")
    with pytest.raises(ConfigError, match=r"guidance\.maps must be distinct names, got vae, vae"):
        check_settings(sd1, ("vae", "vae"), 0)
    with pytest.raises(ValueError, match=r"guidance\.resolution must be a multiple of 4"):
        check_settings(sd1, (), 33)


@pytest.mark.parametrize(
    ("component", "name", "value", "wanted"),
    [
        ("vae", "block_out_channels", None, "a list"),
        ("vae", "block_out_channels", [], "a list"),
        ("unet", "down_block_types", "x", "a list"),
        ("unet", "up_block_types", 5, "a list"),
        ("unet", "sample_size", [64, 64], "a whole number"),
        ("unet", "sample_size", True, "a whole number"),
        ("vae", "latent_channels", 4.0, "a whole number"),
    ],
)
def test_settings_of_another_kind_are_named(copy, component, name, value, wanted):
    path = copy / component / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=rf"{component}/config.json: {name} must be {wanted}, is"):
        check_settings(copy, (), 0)
