import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.data.augment import AUGMENTATIONS, augment, cutout, normalize
from semanticfl_jax.data.augment import random_crop_flip as eager_crop_flip

random_crop_flip = jax.jit(eager_crop_flip, static_argnames="pad")


@pytest.fixture(scope="module")
def images():
    # No zeros, so that the border can be told from the image.
    return np.random.default_rng(0).integers(1, 256, (40, 8, 6, 3), dtype=np.uint8)


def crop_flip(image, top, left, flip, pad):
    """torchvision's order: pad, crop at (top, left), mirror."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crop = padded[top : top + image.shape[0], left : left + image.shape[1]]
    return crop[:, ::-1] if flip else crop


@pytest.mark.parametrize("pad", [0, 2, 4])
def test_every_image_is_one_crop_of_itself(images, pad):
    result = random_crop_flip(jax.random.key(1), images, pad=pad)
    assert result.shape == images.shape and result.dtype == np.uint8
    draws = []
    for image, cropped in zip(images, np.asarray(result), strict=True):
        candidates = [
            (top, left, flip)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            for flip in (False, True)
            if (crop_flip(image, top, left, flip, pad) == cropped).all()
        ]
        assert len(candidates) == 1
        draws += candidates
    tops, lefts, flips = map(np.array, zip(*draws, strict=True))
    assert 8 <= flips.sum() <= 32
    if pad:
        assert tops.min() == lefts.min() == 0
        assert tops.max() == lefts.max() == 2 * pad
        assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.5


def test_draws_are_uniform():
    """Offsets read off an image whose pixels say where they come from."""
    rows, columns = np.mgrid[:9, :9]
    image = np.stack([rows + 1, columns + 1, 0 * rows], axis=-1).astype(np.int32)
    batch = np.broadcast_to(image, (9000, 9, 9, 3))
    centre = np.asarray(random_crop_flip(jax.random.key(0), batch))[:, 4, 4]
    # A mirrored image has its centre column where it was.
    for axis in (0, 1):
        counts = np.bincount(centre[:, axis] - 1, minlength=9)
        chi_square = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_square < 26.1  # 99.9 % of 8 degrees of freedom


def test_randomness_is_of_key_and_position_alone(images):
    key = jax.random.key(2)
    whole = random_crop_flip(key, images)
    part = random_crop_flip(key, images[:7])
    np.testing.assert_array_equal(whole[:7], part)
    assert (random_crop_flip(jax.random.key(3), images) != whole).any()


def test_vmap_over_clients_equals_one_after_another(images):
    keys = jax.random.split(jax.random.key(0), 5)
    clients = images.reshape(5, 8, 8, 6, 3)
    together = jax.jit(jax.vmap(eager_crop_flip))(keys, clients)
    for key, client, result in zip(keys, clients, together, strict=True):
        np.testing.assert_array_equal(random_crop_flip(key, client), result)


@pytest.mark.parametrize("shape", [(32, 32), (8, 12)])
def test_cutout_greys_one_square_centred_anywhere(shape):
    count, side = 3000, min(shape) // 2
    images = np.full((count, *shape, 3), 7, np.uint8)
    result = np.asarray(jax.jit(cutout)(jax.random.key(0), images))
    cut = (result == 128).all(axis=-1)
    np.testing.assert_array_equal(result, np.where(cut[..., None], 128, images).astype(np.uint8))
    rows, columns = cut.any(axis=2), cut.any(axis=1)
    np.testing.assert_array_equal(cut, rows[:, :, None] & columns[:, None, :])
    for touched, length in ((rows, shape[0]), (columns, shape[1])):
        # A centre c covers c - side / 2 to c + side / 2, less what lies outside.
        first, last = touched.argmax(axis=1), length - touched[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal(touched.sum(axis=1), last - first)
        centre = np.where(first > 0, first + side // 2, last - (side - side // 2))
        counts = np.bincount(centre, minlength=length)
        assert len(counts) == length
        expected = count / length
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < length - 1 + 3.5 * np.sqrt(2 * (length - 1))


@pytest.mark.parametrize("step", AUGMENTATIONS)
def test_every_step_keeps_shape_and_dtype_and_depends_on_key_and_position(images, step):
    run = jax.jit(AUGMENTATIONS[step])
    whole = run(jax.random.key(5), images)
    assert whole.shape == images.shape and whole.dtype == np.uint8
    np.testing.assert_array_equal(whole[:7], run(jax.random.key(5), images[:7]))
    assert (run(jax.random.key(6), images) != whole).any()


def test_steps_follow_one_another(images):
    key = jax.random.key(0)
    np.testing.assert_array_equal(augment(key, images, ()), images)
    twice = jax.jit(augment, static_argnums=2)(key, images, ("crop_flip", "crop_flip"))
    once = random_crop_flip(jax.random.fold_in(key, 0), images)
    np.testing.assert_array_equal(twice, random_crop_flip(jax.random.fold_in(key, 1), once))


@pytest.mark.parametrize("lead", [(), (4,), (2, 2)])
def test_normalize(images, lead):
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    batch = images[0] if lead == () else images[:4].reshape(*lead, *images.shape[1:])
    result = normalize(jnp.asarray(batch), mean, std)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, (batch / 255.0 - mean) / std, atol=2e-6)
