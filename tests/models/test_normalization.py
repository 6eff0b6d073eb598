import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.models.normalization import BatchNorm

MASK = np.array([True, False, True, True])
PIXELS = 3 * 2 * 5  # valid rows, height, width


@pytest.fixture(scope="module")
def batch():
    """Images far from zero mean, with wild values in the padded row, and layer variables."""
    rng = np.random.default_rng(0)
    x = (3 + rng.standard_normal((4, 2, 5, 3))).astype(np.float32)
    x[1] = 1e3
    draw = lambda: rng.uniform(0.5, 2, 3).astype(np.float32)  # noqa: E731
    params = {"scale": draw(), "bias": draw()}
    return x, params, {"mean": draw(), "var": draw()}


def apply(x, params, stats, mask, **options):
    variables = {"params": params, "batch_stats": stats}
    options = {"train": True, "mutable": ["batch_stats"], **options}
    return BatchNorm().apply(variables, x, mask=mask, **options)


def test_running_statistics_follow_pytorch(batch):
    x, params, stats = batch
    _, new = apply(x, params, stats, MASK)
    valid = x[MASK].reshape(PIXELS, 3).astype(np.float64)
    mean = 0.9 * stats["mean"] + 0.1 * valid.mean(0)
    var = 0.9 * stats["var"] + 0.1 * valid.var(0, ddof=1)  # unbiased
    np.testing.assert_allclose(new["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], var, rtol=1e-5)


def test_gradients_equal_those_of_the_plain_formula(batch):
    x, params, stats = batch
    weights = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    weights[1] = 0  # a loss over valid rows

    def loss(x, params):
        return jnp.sum(jnp.sin(apply(x, params, stats, MASK)[0]) * weights)

    def plain(valid, params):
        mean, var = jnp.mean(valid, (0, 1, 2)), jnp.var(valid, (0, 1, 2))
        y = (valid - mean[None, None, None]) / jnp.sqrt(var + 1e-5)[None, None, None]
        y = y * params["scale"][None, None, None] + params["bias"][None, None, None]
        return jnp.sum(jnp.sin(y) * weights[MASK])

    dx, dparams = jax.grad(loss, (0, 1))(x, params)
    expected, expected_dparams = jax.grad(plain, (0, 1))(x[MASK], params)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(dx[MASK], expected)
    assert not np.any(dx[1])
    jax.tree.map(close, dparams, expected_dparams)


def test_evaluation_uses_and_keeps_the_running_statistics(batch):
    x, params, stats = batch
    y, new = apply(x, params, stats, None, train=False)
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert not new or jax.tree.all(jax.tree.map(np.array_equal, new["batch_stats"], stats))


def test_a_batch_of_padding_alone_changes_nothing_and_stays_finite(batch):
    x, params, stats = batch
    y, new = apply(x, params, stats, np.zeros(4, bool))
    assert np.all(np.isfinite(y))
    jax.tree.map(np.testing.assert_array_equal, dict(new["batch_stats"]), stats)
