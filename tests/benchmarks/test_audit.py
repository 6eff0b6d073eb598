"""Audits by canaries: who is planted, how they are scored, and that noise hides them."""

import dataclasses

import numpy as np
import pytest

from launch.configs.audit import get_config
from semanticfl_jax.benchmarks import audit
from semanticfl_jax.config import ConfigError
from semanticfl_jax.data.sources import from_config

CONFIG = dataclasses.replace(
    get_config(), rounds=6, eval_every=6, num_clients=20, clients_per_round=20
)


@pytest.fixture(scope="module")
def digits():
    return from_config(CONFIG)


def test_every_canary_has_a_pixel_of_its_own_and_takes_part_or_has_no_image(digits):
    planted = audit.plant(digits, CONFIG, 50)
    images, honest = planted.dataset.train_images, len(digits.train_labels)
    height, width = digits.train_images.shape[1:3]
    assert images.shape[1:] == (height + -(-50 // width), width, 3)
    np.testing.assert_array_equal(images[:honest, :height], digits.train_images)
    assert not images[:honest, height:].any()
    lit = planted.images.reshape(50, -1, 3) > 0
    assert np.all(lit.sum(axis=1) == 1) and np.all(lit[..., 0].sum(axis=0) <= 1)
    assert not planted.images[:, :height].any()
    sizes = planted.partition.sizes
    assert len(sizes) == 20 + 50 and sizes[:20].sum() == honest
    np.testing.assert_array_equal(sizes[20:], planted.included)
    assert 10 < planted.included.sum() < 40
    for canary in np.flatnonzero(planted.included):
        (index,) = planted.partition.client(20 + canary)
        np.testing.assert_array_equal(images[index], planted.images[canary])
        assert planted.dataset.train_labels[index] == planted.labels[canary]
    again = audit.plant(digits, dataclasses.replace(CONFIG, seed=1), 50)
    assert not np.array_equal(again.included, planted.included)


def test_the_score_is_the_preference_over_a_dark_image(digits):
    planted = audit.plant(digits, CONFIG, 30)
    rng = np.random.default_rng(0)
    bias, kernel = rng.normal(size=10), rng.normal(size=(planted.images[0].size, 10))

    def logits(images):
        return images.reshape(len(images), -1) / 255.0 @ kernel + bias

    pixels = planted.images.reshape(30, -1) / 255.0
    expected = [
        (row @ kernel)[label] - (row @ kernel).mean()
        for row, label in zip(pixels, planted.labels, strict=True)
    ]
    np.testing.assert_allclose(audit.score(logits, planted), expected, rtol=1e-9)


def test_noise_lowers_what_an_attacker_learns_and_the_bounds_agree(digits):
    open_, hidden = (audit.audit(digits, CONFIG, 120, noise) for noise in (0.0, 30.0))
    assert open_["epsilon_upper"] is None and open_["auc"] == open_["correct"] == 1.0
    # All of 30 guesses right: 0.05 = p^30 at epsilon = log(p / (1 - p)), but for delta.
    most = 0.05 ** (1 / open_["guesses"])
    assert open_["epsilon_lower"] == pytest.approx(np.log(most / (1 - most)), abs=0.05)
    assert 0.3 < hidden["auc"] < 0.7
    assert hidden["epsilon_lower"] <= hidden["epsilon_upper"] < 1


def test_what_would_move_pixels_is_refused(digits):
    with pytest.raises(ConfigError, match="augmentation must be none in an audit"):
        audit.plant(digits, dataclasses.replace(CONFIG, augmentation=("crop_flip",)), 40)
