"""Rows that clients compute of their own images: right, for all of them, and on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.base import Contact, LossTerm
from semanticfl_jax.devices.mesh import make_mesh, replicated
from semanticfl_jax.federated import first_contact
from semanticfl_jax.federated.first_contact import with_own_rows
from tests.federation import FEDAVG

SCALE = np.float32(3)


def rows(shared, images):
    return {"means": shared["scale"] * images.astype(jnp.float32).mean(axis=(1, 2))}


def algorithm(order=None):
    term = LossTerm(
        "own",
        lambda inputs: jnp.sum(inputs.rows["means"]),
        shared={"scale": SCALE},
        per_sample={"sent": np.zeros((64, 1), np.float16)},
        contact=Contact(rows, order),
    )
    return FEDAVG.with_term(term)


def computed(federation, devices, order=None, host=False):
    mesh = make_mesh(devices)
    _, data, _, _ = federation.start(FEDAVG, mesh)
    own, kept = algorithm(order), None
    if host:
        data, kept = data.replace(images=None), federation.images
    sent = jax.device_put(own.sent_once, replicated(mesh))
    return jax.device_get(with_own_rows(own, sent, data, mesh, kept)["own"])


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_every_image_of_a_client_has_its_row(federation, devices, monkeypatch):
    monkeypatch.setattr(first_contact, "_BLOCK", 7)  # several blocks, the last one filled up
    shared, per_sample, holders = computed(federation, devices)
    assert (shared, holders) == ({"scale": SCALE}, {})
    assert set(per_sample) == {"sent", "means"}
    expected = np.zeros((64, 3), np.float32)
    own = federation.partition.indices
    expected[own] = 3 * federation.images[own].mean(axis=(1, 2))
    np.testing.assert_allclose(per_sample["means"], expected, rtol=1e-5)
    assert np.count_nonzero(expected.any(axis=1)) == len(own) < len(expected)


def test_images_in_host_memory_get_the_same_rows(federation, monkeypatch):
    monkeypatch.setattr(first_contact, "_BLOCK", 7)
    order = np.random.default_rng(0).permutation(60)

    def chosen(count):
        return order[:count]

    found = computed(federation, 2, chosen, host=True)[1]["means"]
    np.testing.assert_array_equal(found, computed(federation, 2, chosen)[1]["means"])


def test_a_control_gives_images_the_rows_of_others(federation):
    own = np.sort(federation.partition.indices)
    order = np.random.default_rng(0).permutation(len(own))
    means = computed(federation, 2, lambda count: order[:count])[1]["means"]
    expected = 3 * federation.images[own[order]].mean(axis=(1, 2))
    np.testing.assert_allclose(means[own], expected, rtol=1e-5)


def test_algorithms_without_such_rows_stay_as_they_are(federation, guided):
    mesh = make_mesh(1)
    _, data, sent, _ = federation.start(guided, mesh)
    assert with_own_rows(guided, sent, data, mesh) == sent
