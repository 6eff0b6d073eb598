"""Corrupted clients: who is drawn, and each corruption beside an independent reference."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from semanticfl_jax.config.heterogeneity import FeatureSkewConfig
from semanticfl_jax.data.corruptions import (
    KINDS,
    Corruptions,
    corrupt,
    corrupt_clients,
    draw_corruptions,
    examples,
)
from semanticfl_jax.data.partition import Partition
from tests.data.augment.test_image_operations import pictures

ALL = FeatureSkewConfig(corruptions=tuple(KINDS), min_severity=0.2, max_severity=0.7)
IMAGES = pictures(32, 24)
INDICES = np.arange(len(IMAGES))
#: Five clients of unequal size; two images belong to nobody.
PARTITION = Partition([4, 0, 7, 2, 9, 3, 5, 8, 6], [0, 2, 5, 6, 6, 9])


def run(kind, severity, images=IMAGES):
    return corrupt(images, kind, severity, INDICES, seed=0).astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_changes_nothing_and_more_changes_more(kind):
    np.testing.assert_array_equal(run(kind, 0.0), IMAGES)
    np.testing.assert_allclose(run(kind, 1e-6), IMAGES, atol=1)
    natural = IMAGES[2:8].astype(int)
    changes = [np.abs(run(kind, s)[2:8] - natural).mean() for s in (0.1, 0.3, 0.6, 1.0)]
    # The mildest blurs are narrower than a pixel, and change nothing that can be seen.
    assert (np.diff(changes) > 0).all() and changes[1] > 1
    assert kind == "blur" or changes[0] > 0.5


@pytest.mark.parametrize("severity", [0.3, 1.0])
def test_noise_is_gaussian_of_the_stated_strength(severity):
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    added = corrupt(grey, "noise", severity, np.arange(40), seed=3) - 128.0
    assert abs(added.mean()) < 0.6
    # At strength 64 values are cut at two standard deviations, where a normal's become 0.9594.
    expected = 64 * severity * (0.9594 if severity == 1 else 1)
    assert added.std() == pytest.approx(expected, rel=0.02)
    channels = np.corrcoef(added.reshape(-1, 3).T)
    assert np.abs(channels - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("severity", [0.2, 0.7, 1.0])
def test_blur_is_a_gaussian_filter(severity):
    sigmas = (0, severity * 2, severity * 1.5, 0)
    expected = gaussian_filter(IMAGES.astype(float), sigmas, mode="nearest")
    np.testing.assert_allclose(run("blur", severity), expected, atol=0.51)


def area_average(values, size, axis):
    """Every pixel cut into `size` slivers, of which equal numbers make each new pixel."""
    slivers = np.moveaxis(np.repeat(values, size, axis), axis, 0)
    means = slivers.reshape(size, values.shape[axis], *slivers.shape[1:]).mean(axis=1)
    return np.moveaxis(means, 0, axis)


@pytest.mark.parametrize(("severity", "size"), [(1.0, (8, 6)), (2 / 3, (16, 12)), (0.4, (22, 17))])
def test_low_resolution_averages_areas_and_interpolates_as_pillow(severity, size):
    result = run("low_resolution", severity)
    for image, changed in zip(IMAGES.astype(np.float32), result, strict=True):
        small = area_average(area_average(image, size[0], 0), size[1], 1)
        for channel in range(3):
            picture = Image.fromarray(small[..., channel])
            expected = picture.resize((24, 32), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(changed[..., channel], np.asarray(expected), atol=0.51)


def test_contrast_moves_values_towards_the_mean():
    for severity in (0.5, 1.0):
        for image, result in zip(IMAGES.astype(float), run("contrast", severity), strict=True):
            expected = image.mean() + (1 - 0.85 * severity) * (image - image.mean())
            np.testing.assert_allclose(result, expected, atol=0.51)


def test_noise_belongs_to_seed_and_image_alone():
    corruptions = Corruptions(("noise",) * 5, np.full(5, 0.5, np.float32))
    whole = corrupt_clients(IMAGES, PARTITION, corruptions, seed=1)
    dealt_otherwise = Partition(np.sort(PARTITION.indices), [0, 1, 1, 4, 9, 9])
    np.testing.assert_array_equal(
        whole, corrupt_clients(IMAGES, dealt_otherwise, corruptions, seed=1)
    )
    assert (whole != corrupt_clients(IMAGES, PARTITION, corruptions, seed=2)).any()
    one_colour = np.full_like(IMAGES, 100)
    noise = corrupt_clients(one_colour, PARTITION, corruptions, seed=1)[PARTITION.indices]
    assert len(np.unique(noise.reshape(len(noise), -1), axis=0)) == len(noise)


def test_each_client_gets_its_own_and_others_keep_theirs(tmp_path):
    kinds = ("blur", "contrast", None, "noise", "low_resolution")
    corruptions = Corruptions(kinds, np.array([0.9, 0.4, 0, 0.5, 0.6], np.float32))
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    result = corrupt_clients(mapped, PARTITION, corruptions, seed=0)
    assert result.dtype == np.uint8 and result.shape == IMAGES.shape
    expected = IMAGES.copy()
    for client, (kind, severity) in enumerate(zip(*corruptions, strict=True)):
        for index in PARTITION.client(client):
            one = corrupt(IMAGES[[index]], kind, float(severity), np.array([index]), seed=0)
            expected[index] = one[0]
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(mapped, IMAGES)
    nobody = Corruptions((None,) * 5, np.zeros(5, np.float32))
    assert corrupt_clients(mapped, PARTITION, nobody, seed=0) is mapped


def test_as_many_clients_as_the_share_says():
    for share in (0.0, 0.26, 1.0):
        drawn = draw_corruptions(dataclasses.replace(ALL, share=share), 50, seed=0)
        hit = np.array([kind is not None for kind in drawn.kinds])
        assert hit.sum() == round(share * 50)
        assert ((drawn.severities > 0) == hit).all()
    assert draw_corruptions(FeatureSkewConfig(), 4, seed=0).kinds == (None,) * 4


def test_kinds_and_severities_are_uniform_and_independent():
    drawn = draw_corruptions(ALL, 8000, seed=0)
    assert drawn.severities.dtype == np.float32
    for kind in KINDS:
        own = drawn.severities[[k == kind for k in drawn.kinds]]
        assert abs(len(own) - 2000) < 150
        shares = np.histogram(own, bins=5, range=(0.2, 0.7))[0] / len(own)
        np.testing.assert_allclose(shares, 0.2, atol=0.04)
    assert drawn.severities.min() >= 0.2 and drawn.severities.max() <= 0.7


def test_draws_depend_on_seed_and_client_alone():
    first, more = draw_corruptions(ALL, 20, seed=5), draw_corruptions(ALL, 90, seed=5)
    assert more.kinds[:20] == first.kinds
    np.testing.assert_array_equal(more.severities[:20], first.severities)
    half = draw_corruptions(dataclasses.replace(ALL, share=0.5), 20, seed=5)
    chosen = [client for client, kind in enumerate(half.kinds) if kind is not None]
    assert len(chosen) == 10
    assert [half.kinds[client] for client in chosen] == [first.kinds[c] for c in chosen]
    np.testing.assert_array_equal(half.severities[chosen], first.severities[chosen])
    assert draw_corruptions(ALL, 20, seed=6).kinds != first.kinds


def test_examples_spread_over_kinds_and_severities():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 4, 4, 3), dtype=np.uint8)
    partition = Partition(np.arange(400), np.arange(0, 401, 4))
    corruptions = draw_corruptions(dataclasses.replace(ALL, share=0.9), 100, seed=0)
    after = corrupt_clients(images, partition, corruptions, seed=0)
    rows = examples(images, after, partition, corruptions, max_clients=12, max_images=3)
    assert len(rows) == 12
    for kind in KINDS:
        assert sum(f": {kind.replace('_', ' ')}, severity 0." in label for label, *_ in rows) == 3
    for label, before, changed in rows:
        client = partition.client(int(label.split(":")[0].removeprefix("client ")))[:3]
        np.testing.assert_array_equal(before, images[client])
        np.testing.assert_array_equal(changed, after[client])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="corruption must be one of noise, blur"):
        run("fog", 0.5)
    with pytest.raises(ValueError, match=r"severity must be from 0 to 1, got 1\.5"):
        run("blur", 1.5)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        draw_corruptions(ALL, 3, seed=-1)
    with pytest.raises(ValueError, match="of 3 clients, the partition has 5"):
        corrupt_clients(IMAGES, PARTITION, draw_corruptions(ALL, 3, seed=0), seed=0)
