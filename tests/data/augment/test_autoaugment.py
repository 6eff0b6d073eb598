"""The policy as a whole; its operations are compared with Pillow's in test_image_operations."""

import importlib
import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from semanticfl_jax.data.augment.autoaugment import POLICY, autoaugment
from semanticfl_jax.data.augment.image_operations import apply_operation, operation

# The package gives the function of that name, too.
module = importlib.import_module("semanticfl_jax.data.augment.autoaugment")

run = jax.jit(autoaugment)
apply = jax.jit(apply_operation)
SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


@pytest.fixture(scope="module")
def image():
    """Smooth and dull, so that no operation leaves it as it is."""
    y, x = np.mgrid[:10, :12][..., None]
    return (90 + 40 * np.sin(x / 3 + np.arange(3)) + 3 * y + 2 * (x * y % 5)).astype(np.uint8)


def outcomes(image):
    """Probability of every result, from the paper's description, one sub-policy after another."""
    expected = Counter()
    for pair in POLICY:
        choices = []
        for name, probability, magnitude in pair:
            value = module.value(name, magnitude)
            signs = (1, -1) if name in SIGNED else (1,)
            applied = [(name, sign * value, probability / len(signs)) for sign in signs]
            choices.append([("Identity", 0.0, 1 - probability), *applied])
        for first, second in itertools.product(*choices):
            result = image
            for name, value, _ in (first, second):
                result = apply(result, operation(name, value, *image.shape[:2]))
            expected[np.asarray(result).tobytes()] += first[2] * second[2] / len(POLICY)
    return expected


def test_results_are_the_policys_as_often_as_it_says(image):
    count = 20_000
    batch = np.broadcast_to(image, (count, *image.shape))
    seen = Counter(result.tobytes() for result in np.asarray(run(jax.random.key(0), batch)))
    expected = {result: p * count for result, p in outcomes(image).items() if p > 0}
    assert set(seen) <= set(expected)
    assert len(expected) > 60
    # Rare results are counted together, as the chi-square test wants.
    often = [result for result, number in expected.items() if number >= 10]
    pairs = [(seen[result], expected[result]) for result in often]
    pairs.append((count - sum(s for s, _ in pairs), count - sum(e for _, e in pairs)))
    chi_square = sum((s - e) ** 2 / e for s, e in pairs if e > 1e-6)
    freedom = len(pairs) - 1
    assert chi_square < freedom + 3.5 * np.sqrt(2 * freedom)


def test_magnitudes_span_the_papers_ranges():
    assert module.value("ShearX", 9) == pytest.approx(0.3)
    assert module.value("Rotate", 2) == pytest.approx(20 / 3)
    assert module.value("TranslateY", 9) == pytest.approx(150 / 331)
    assert [module.value("Posterize", m) for m in (0, 7, 9)] == [8, 5, 4]
    assert [module.value("Solarize", m) for m in (0, 9)] == [256, 0]
    for name in ("Brightness", "Contrast", "Color", "Sharpness"):
        factors = [module.value(name, m) for m in (0, 9)]
        np.testing.assert_allclose(factors, [0.1, 1.9])
    assert module.value("Invert", None) == 0


def test_randomness_is_of_key_and_position_alone():
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    whole = run(jax.random.key(2), images)
    np.testing.assert_array_equal(whole[:5], run(jax.random.key(2), images[:5]))
    assert (run(jax.random.key(3), images) != whole).any()


def test_vmap_over_clients_equals_one_after_another():
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8)
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(autoaugment))(keys, images)
    for key, client, result in zip(keys, images, together, strict=True):
        np.testing.assert_array_equal(run(key, client), result)
