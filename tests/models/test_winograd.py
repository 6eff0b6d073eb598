"""Winograd convolutions: their values, their gradients, and where they are taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.models.client_conv import conv, winograd
from tests.models.test_client_conv import convolutions, draw, numpy_conv

# Outputs that are and are not whole tiles of 4 x 4.
SIZES = ((8, 4, 1), (5, 7, 1), (3, 9, 0), (6, 6, 2))


def off_by(found, expected):
    """The largest difference, as a share of the largest value."""
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("height", "width", "padding"), SIZES)
def test_values_are_those_of_the_definition(height, width, padding):
    x, kernel = draw(0, 2, height, width, 3), draw(1, 3, 3, 3, 4)
    found = winograd.convolve(x, kernel, ((padding, padding),) * 2)
    expected = numpy_conv(x, kernel, (1, 1), padding)
    assert found.shape == expected.shape and off_by(found, expected) < 5e-6


@pytest.mark.parametrize(("height", "width", "padding"), SIZES)
def test_gradients_by_the_kernel_are_those_of_the_definition(height, width, padding):
    x, kernel = draw(0, 2, height, width, 3), draw(1, 3, 3, 3, 4)
    dy = draw(2, *numpy_conv(x, kernel, (1, 1), padding).shape)
    found = winograd.kernel_gradient(x, dy, ((padding, padding),) * 2)
    # Each tap is a convolution of the images by dy.
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))).astype(np.float64)
    expected = np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        seen = padded[:, i : i + dy.shape[1], j : j + dy.shape[2]]
        expected[i, j] = np.tensordot(seen, dy, ((0, 1, 2), (0, 1, 2)))
    assert found.shape == expected.shape and off_by(found, expected) < 5e-6


def test_padding_may_differ_by_side():
    x, kernel = draw(0, 1, 5, 6, 2), draw(1, 3, 3, 2, 2)
    pads = ((0, 2), (1, 0))
    expected = numpy_conv(np.pad(x, ((0, 0), *pads, (0, 0))), kernel, (1, 1), 0)
    assert off_by(winograd.convolve(x, kernel, pads), expected) < 5e-6


@pytest.fixture(scope="module")
def wide():
    """Images, and a kernel of so many channels that it is the faster way."""
    return draw(0, 13, 7, 8, 33), draw(1, 3, 3, 33, 34) / 17


def loss(lowering, x, kernel):
    return jnp.sum(jnp.sin(conv(x, kernel, padding=1, lowering=lowering)))


def test_canonical_takes_it_for_many_channels_in_all_three_maps(wide):
    gradient = jax.value_and_grad(functools.partial(loss, "canonical"), (0, 1))
    assert convolutions(gradient, *wide) == [] and "while" not in str(
        jax.make_jaxpr(gradient)(*wide)
    )
    native = jax.jit(jax.value_and_grad(functools.partial(loss, "native"), (0, 1)))(*wide)
    value, gradients = jax.jit(gradient)(*wide)
    assert float(value) == pytest.approx(float(native[0]), rel=1e-4)
    for found, expected in zip(gradients, native[1], strict=True):
        assert off_by(found, np.asarray(expected)) < 3e-5


def test_it_is_as_exact_as_it_says(wide):
    assert off_by(conv(*wide, padding=1, lowering="canonical"), numpy_conv(*wide, (1, 1), 1)) < 1e-5


def test_clients_with_kernels_of_their_own_take_it_one_after_another(wide):
    x, kernel = wide
    kernels, images = np.stack([kernel, -kernel]), np.stack([x, x + 1])
    gradient = jax.grad(functools.partial(loss, "canonical"), 1)
    assert convolutions(jax.vmap(gradient), images, kernels) == []
    found = jax.jit(jax.vmap(gradient))(images, kernels)
    for client in range(2):
        alone = jax.jit(gradient)(images[client], kernels[client])
        assert off_by(found[client], np.asarray(alone)) < 1e-5


@pytest.mark.parametrize(
    ("shape", "kernel", "pads", "dtype"),
    [
        ((13, 7, 8, 31), (3, 3, 31, 40), 1, jnp.float32),
        ((13, 7, 8, 40), (3, 3, 40, 31), 1, jnp.float32),
        ((12, 7, 8, 40), (3, 3, 40, 40), 1, jnp.float32),  # 48 tiles
        ((13, 6, 6, 40), (3, 3, 40, 40), 1, jnp.float32),  # tiles that are half empty
        ((13, 7, 8, 40), (3, 3, 40, 40), 1, jnp.bfloat16),
        ((13, 7, 8, 40), (3, 1, 40, 40), 1, jnp.float32),
        ((13, 9, 10, 40), (3, 3, 40, 40), -1, jnp.float32),
    ],
)
def test_it_is_not_taken(shape, kernel, pads, dtype):
    def faster(shape, kernel, pads, dtype):
        return winograd.is_faster(jax.ShapeDtypeStruct(shape, dtype), kernel, ((pads, pads),) * 2)

    assert not faster(shape, kernel, pads, dtype)
    assert faster((13, 7, 8, 40), (3, 3, 40, 40), 1, jnp.float32)


def test_accelerators_never_take_it(monkeypatch):
    image, form = jax.ShapeDtypeStruct((13, 7, 8, 40), jnp.float32), ((3, 3, 40, 40), ((1, 1),) * 2)
    assert winograd.is_faster(image, *form)
    monkeypatch.setattr(winograd.jax, "default_backend", lambda: "gpu")
    assert not winograd.is_faster(image, *form)


def test_strides_keep_the_convolution(wide):
    def total(lowering, x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel, (2, 2), 1, lowering)))

    gradient = {
        name: jax.grad(functools.partial(total, name), (0, 1)) for name in ("canonical", "native")
    }
    assert len(convolutions(gradient["canonical"], *wide)) == 2  # forward, and by the images
    for found, expected in zip(*(jax.jit(of)(*wide) for of in gradient.values()), strict=True):
        assert off_by(found, np.asarray(expected)) < 1e-5
