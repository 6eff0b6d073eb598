"""bfloat16 networks: what stays in float32, how near they come to it, and that they learn.

A bfloat16 number is within 2^-9 (0.2 %) of what it stands for. Layers are held to 1 %; a network's
gradient is further off, because a rounded activation can fall on the other side of a ReLU.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from semanticfl_jax.data.sources import load_dataset
from semanticfl_jax.models.client_conv import conv
from semanticfl_jax.models.network import as_outputs
from semanticfl_jax.models.normalization import BatchNorm, GroupNorm
from semanticfl_jax.models.outputs import Outputs
from tests.models.networks import create_model

BATCH = 16


def relative_error(found, expected):
    def flat(tree):
        return jnp.concatenate([x.astype(jnp.float32).ravel() for x in jax.tree.leaves(tree)])

    return float(jnp.linalg.norm(flat(found) - flat(expected)) / jnp.linalg.norm(flat(expected)))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rounded(*arrays):
    """The arrays as bfloat16, and float32 arrays of exactly these values."""
    low = [x.astype(jnp.bfloat16) for x in arrays]
    return low, [x.astype(jnp.float32) for x in low]


@pytest.mark.parametrize("lowering", ["native", "canonical", "patches", "shifted"])
def test_every_lowering_computes_in_bfloat16(lowering):
    low, exact = rounded(normal(0, 4, 8, 8, 6), normal(1, 3, 3, 6, 5), normal(2, 4, 8, 8, 5))

    def of(x, kernel, dy):
        y, pullback = jax.vjp(lambda x, kernel: conv(x, kernel, padding=1, lowering=lowering),
                              x, kernel)  # fmt: skip
        return y, *pullback(dy)

    for found, expected in zip(of(*low), of(*exact), strict=True):
        assert found.dtype == jnp.bfloat16
        assert relative_error(found, expected) < 0.01


@pytest.mark.parametrize("layer", [BatchNorm(), GroupNorm()])
@pytest.mark.parametrize("train", [True, False])
def test_normalisation_sums_in_float32(layer, train):
    # 16,384 ones add up to 256 in bfloat16: a mean of 3 would be lost.
    low, exact = rounded(3 + normal(0, 16, 32, 32, 4), normal(1, 16, 32, 32, 4))
    variables = layer.init(jax.random.key(0), exact[0], train=False)

    def of(x, dy):
        def apply(params, x):
            state = {**variables, "params": params}
            return layer.apply(state, x, train=train, mutable=["batch_stats"])

        y, pullback, updates = jax.vjp(apply, variables["params"], x, has_aux=True)
        return updates, y, *pullback(dy)

    (updates, y, params, x), expected = of(*low), of(*exact)
    assert y.dtype == x.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((updates, params)))
    if updates:
        assert relative_error(updates, expected[0]) < 1e-6
    for found, right in zip((y, params, x), expected[1:], strict=True):
        assert relative_error(found, right) < 0.01


@pytest.mark.parametrize("name", ["resnet10", "cnn"])
def test_a_step_in_bfloat16_is_near_that_of_float32_and_gives_float32(name):
    images, labels = normal(0, BATCH, 16, 16, 3), jnp.arange(BATCH) % 5
    results = {}
    for precision in ("float32", "bfloat16"):
        model = create_model(name, 5, width=4, precision=precision)
        variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))

        def loss_of(params, model=model, variables=variables):
            variables = {**variables, "params": params}
            options = {"mutable": ["batch_stats"], "rngs": {"dropout": jax.random.key(1)}}
            outputs, updates = model.apply(variables, images, train=True, **options)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs.logits, labels)
            return jnp.mean(losses), (outputs, updates)

        program = jax.jit(jax.value_and_grad(loss_of, has_aux=True)).lower(variables["params"])
        assert ("bf16" in program.as_text()) == (precision == "bfloat16")
        results[precision] = program.compile()(variables["params"])
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(results[precision]))
    (forward, gradient), (exact, exact_gradient) = results["bfloat16"], results["float32"]
    assert 1e-4 < relative_error(forward, exact) < 0.02
    assert relative_error(gradient, exact_gradient) < 0.2


def test_a_bfloat16_network_learns_a_batch_of_digits():
    digits = load_dataset("digits", None)
    images = jnp.asarray(digits.train_images[:BATCH], jnp.float32) / 255 - 0.5
    labels = jnp.asarray(digits.train_labels[:BATCH])
    model = create_model("cnn", 10, precision="bfloat16")
    params = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)["params"]

    @jax.jit
    def descend(params):
        def loss_of(params):
            logits = model.apply({"params": params}, images, train=False).logits
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, gradient = jax.value_and_grad(loss_of)(params)
        # At larger rates the loss bounces, in float32 as well, and rounding decides where it ends.
        return jax.tree.map(lambda x, g: x - 0.03 * g, params, gradient), loss

    losses = []
    for _ in range(40):
        params, loss = descend(params)
        losses.append(float(loss))
    assert losses[0] > 2
    assert losses[-1] < 0.2 * losses[0]


def test_what_a_network_returns_is_float32_bare_or_as_outputs():
    low = jnp.ones((2, 3), jnp.bfloat16)
    for result in (low, Outputs(low, low)):
        kinds = {x.dtype for x in jax.tree.leaves(as_outputs(result))}
        assert kinds == {jnp.dtype(jnp.float32)}
