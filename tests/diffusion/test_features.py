"""Features: what they are made of, and that batches and devices do not show in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.diffusion import features
from semanticfl_jax.diffusion.features import add_noise, available_maps, extract_features

# Shallow, so that little is compiled: what a deeper map needs more is in the parity tests.
MAPS = ("vae", "down_0")
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 24, 24, 3), dtype=np.uint8)
INDEX = np.arange(11) % 2


def extract(model, images=IMAGES, index=INDEX, **options):
    sd, golden = model
    options = {"maps": MAPS, "progress": False, "resolution": 32} | options
    return extract_features(sd, images, golden["token_states"], index, **options)


@pytest.fixture(scope="module")
def extracted(sd1):
    return extract(sd1, batch_size=8)


def test_noise_parity(model):
    sd, golden = model
    noised = add_noise(golden["latents"], golden["noise"], sd.alphas_cumprod[150])
    np.testing.assert_allclose(noised, golden["noised"], rtol=1e-5, atol=1e-6)


def test_noise_of_an_image_of_its_own():
    alpha_bar = jnp.array([1.0, 0.0, 0.25])[:, None]
    found = add_noise(jnp.full((3, 2), 2.0), jnp.full((3, 2), 4.0), alpha_bar)
    np.testing.assert_allclose(found[:, 0], [2.0, 4.0, 1.0 + 0.75**0.5 * 4], rtol=1e-6)


def test_features_are_pooled_maps_of_noised_latents(sd1, extracted):
    sd, golden = sd1
    pixels = jax.image.resize(jnp.float32(IMAGES), (11, 32, 32, 3), "bilinear") / 127.5 - 1
    latents = sd.encode(pixels)
    np.testing.assert_allclose(extracted["vae"], latents.mean((1, 2)), rtol=1e-4, atol=1e-6)
    key, t = jax.random.key(0), 150
    for i in (0, 3, 10):
        noise = jax.random.normal(jax.random.fold_in(key, i), latents.shape[1:])
        noised = add_noise(latents[i], noise, sd.alphas_cumprod[t])[None]
        states = golden["token_states"][INDEX[i]][None]
        (found,) = sd.feature_maps(noised, t, states, ("down_0",)).values()
        np.testing.assert_allclose(extracted["down_0"][i], found.mean((0, 1, 2)), rtol=1e-3)


def test_vae_feature_matches_pytorch(sd1):
    golden = sd1[1]
    found = extract(sd1, golden["images"], INDEX[:2], maps=("vae",), resolution=None)
    expected = golden["latents"].mean((1, 2))
    np.testing.assert_allclose(found["vae"], expected, atol=1e-4 * np.abs(expected).max())


def test_shapes_and_order(extracted):
    assert list(extracted) == list(MAPS)
    assert {name: (f.shape, f.dtype) for name, f in extracted.items()} == {
        "vae": ((11, 4), np.float32),
        "down_0": ((11, 8), np.float32),
    }


def test_batches_parts_and_devices_do_not_show(sd1, extracted, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    other = extract(sd1, batch_size=3)
    first = extract(sd1, IMAGES[:5], INDEX[:5], batch_size=3)
    second = extract(sd1, IMAGES[5:], INDEX[5:], batch_size=3, first_position=5)
    for name in MAPS:
        np.testing.assert_allclose(other[name], extracted[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(first[name], other[name][:5])
        np.testing.assert_allclose(second[name], other[name][5:], rtol=1e-4, atol=1e-5)


def test_seed_and_prompt_matter(sd1, extracted):
    reseeded = extract(sd1, batch_size=8, seed=1)
    np.testing.assert_array_equal(reseeded["vae"], extracted["vae"])
    assert np.abs(reseeded["down_0"] - extracted["down_0"]).max() > 1e-3
    prompted = extract(sd1, index=1 - INDEX, batch_size=8)
    assert np.abs(prompted["down_0"] - extracted["down_0"]).min(0).max() > 1e-6


def test_default_maps_are_those_the_checkpoint_has(sd1, monkeypatch):
    sd, _ = sd1
    assert features.default_maps(sd) == features.DEFAULT_MAPS
    assert available_maps(sd) == ("vae", *sd.available_maps)
    fewer = {name: module for name, module in sd.networks.maps.items() if name != "up_3"}
    monkeypatch.setattr(sd.networks, "maps", fewer)
    assert features.default_maps(sd) == ("vae", "mid", "up_1", "up_2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": ("mid", "up_7")}, "maps: must be among vae, down_0, .*up_3, not 'up_7'"),
        ({"maps": ()}, "maps: must be distinct"),
        ({"maps": ("mid", "mid")}, "maps: must be distinct"),
        ({"timestep": 1000}, "timestep: must be from 0 to 999, not 1000"),
        ({"batch_size": 0}, "batch_size"),
        ({"resolution": 30}, "resolution: must be a positive multiple of 4, not 30"),
        ({"images": IMAGES / 255}, "images: must be uint8"),
        ({"images": IMAGES[:0], "index": INDEX[:0]}, "images: must be uint8 .* n > 0"),
        ({"index": INDEX[:3]}, "prompt_index: must be integers"),
        ({"index": INDEX + 1}, r"prompt_index: must be integers \[11\] from 0 to 1, not \(1, 2\)"),
    ],
)
def test_bad_arguments_are_named(sd1, options, message):
    with pytest.raises(ValueError, match=message):
        extract(sd1, **options)
