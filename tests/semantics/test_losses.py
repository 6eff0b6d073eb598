"""Each loss and its gradient against NumPy closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.models.losses import masked_mean, unit
from semanticfl_jax.semantics.losses import cross_modal_contrast, distillation

B, D, K = 6, 5, 4
MASK = np.array([True, True, False, True, False, True])


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(K, D))
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    return rng.normal(size=(B, D)), anchors, rng.integers(0, K, B)


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def through_unit(x, gradient):
    """Chain rule of x / |x|: the part of the gradient across x, divided by |x|."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    u = x / length
    return (gradient - u * np.sum(u * gradient, axis=1, keepdims=True)) / length


def distillation_numpy(features, targets, mask, kind, temperature):
    u = features / np.linalg.norm(features, axis=1, keepdims=True)
    if kind == "kl":
        p, q = softmax(targets / temperature), softmax(u / temperature)
        loss, by_unit = np.sum(p * np.log(p / q), axis=1), (q - p) / temperature
    elif kind == "l2":
        loss, by_unit = np.sum((u - targets) ** 2, axis=1), 2 * (u - targets)
    else:
        loss, by_unit = 1 - np.sum(u * targets, axis=1), -targets
    share = mask / mask.sum()
    return np.sum(share * loss), share[:, None] * through_unit(features, by_unit)


def contrast_numpy(projected, text, labels, mask, temperature):
    u = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    p = softmax(u @ text.T / temperature)
    share = mask / mask.sum()
    loss = -np.log(p[np.arange(B), labels])
    by_unit = (p - np.eye(K)[labels]) @ text / temperature
    return np.sum(share * loss), share[:, None] * through_unit(projected, by_unit)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("kind", ["kl", "l2", "cosine"])
def test_distillation_matches_closed_form(batch, kind, temperature):
    features, anchors, labels = batch
    targets = anchors[labels]
    expected, expected_gradient = distillation_numpy(features, targets, MASK, kind, temperature)
    loss, gradient = jax.value_and_grad(distillation)(
        jnp.asarray(features, jnp.float32), targets, MASK, kind, temperature
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_contrast_matches_closed_form(batch):
    projected, text, labels = batch
    expected, expected_gradient = contrast_numpy(projected, text, labels, MASK, 0.05)
    loss, gradient = jax.value_and_grad(cross_modal_contrast)(
        jnp.asarray(projected, jnp.float32), text, labels, MASK, 0.05
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-5)


def test_padded_rows_count_neither_in_the_loss_nor_in_the_gradient(batch):
    features, anchors, labels = batch
    changed = np.where(MASK[:, None], features, np.nan_to_num(features * 1e3))

    def total(x):
        kd = distillation(x, anchors[labels], MASK, "kl", 0.5)
        return kd + cross_modal_contrast(x, anchors, labels, MASK, 0.05)

    loss, gradient = jax.value_and_grad(total)(jnp.asarray(features, jnp.float32))
    other, other_gradient = jax.value_and_grad(total)(jnp.asarray(changed, jnp.float32))
    assert loss == other
    np.testing.assert_array_equal(gradient, other_gradient)
    np.testing.assert_array_equal(gradient[~MASK], 0.0)


def test_features_that_are_exactly_zero_give_finite_gradients():
    zeros = jnp.zeros((2, D))
    gradient = jax.grad(lambda x: jnp.sum(unit(x)))(zeros)
    np.testing.assert_array_equal(gradient, 0.0)


def test_mean_of_no_rows_is_zero():
    assert masked_mean(jnp.ones(3), jnp.zeros(3, bool)) == 0.0


def test_unknown_distillation_is_refused(batch):
    features, anchors, labels = batch
    with pytest.raises(ValueError, match="kd must be one of kl, l2, cosine"):
        distillation(jnp.asarray(features), anchors[labels], MASK, "mse", 1.0)
