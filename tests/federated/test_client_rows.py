"""Rows of client states travel between devices: against NumPy's indexing, and in how many ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.devices.mesh import make_mesh, replicated, split
from semanticfl_jax.federated.client_rows import put_rows, sharding, take_rows
from semanticfl_jax.planning.hlo import collectives_of


def states(number):
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(number, 3, 2)).astype(np.float32),
        "b": rng.normal(size=(number, 5)).astype(np.float32),
        "c": rng.integers(0, 99, (number,)).astype(np.int32),
    }


# Kept spread, where 4 devices divide the clients, and else whole on each device.
@pytest.mark.parametrize("devices, number", [(1, 6), (4, 16), (4, 10)])
def test_rows_travel_as_they_are(devices, number):
    mesh = make_mesh(devices)
    everyone = states(number)
    clients = np.array([5, 0, -1, 9, 2, 8, 3, -1], np.int32) % number
    clients[[2, 7]] = -1
    _, first = np.unique(clients, return_index=True)
    clients[np.setdiff1d(np.arange(8), first)] = -1  # nobody is in a cohort twice
    there = clients >= 0
    placed = jax.device_put(everyone, sharding(mesh, number))
    ids = jax.device_put(jnp.asarray(clients), replicated(mesh))
    rows = jax.jit(lambda x, ids: take_rows(x, ids, mesh))(placed, ids)
    for name, found in rows.items():
        np.testing.assert_array_equal(np.asarray(found)[there], everyone[name][clients[there]])
        assert found.sharding.is_equivalent_to(split(mesh), found.ndim)
    after = jax.jit(lambda x, rows, ids: put_rows(x, rows, ids, mesh))(
        placed, jax.tree.map(lambda x: x + 1, rows), ids
    )
    for name, found in after.items():
        expected = everyone[name].copy()
        expected[clients[there]] += 1
        np.testing.assert_array_equal(found, expected)
        assert found.sharding.is_equivalent_to(sharding(mesh, number), found.ndim)


def test_no_device_gathers_what_the_others_have():
    mesh = make_mesh(4)
    placed = jax.device_put(states(16), sharding(mesh, 16))
    ids = jax.device_put(jnp.arange(8, dtype=jnp.int32), replicated(mesh))

    def there_and_back(everyone, ids):
        return put_rows(everyone, take_rows(everyone, ids, mesh), ids, mesh)

    text = jax.jit(there_and_back).lower(placed, ids).compile().as_text()
    found = collectives_of(text)
    # One exchange in a loop for each way and type of array, of one device's share: two rows.
    assert {each.kind for each in found} == {"collective-permute"}
    assert len(found) == 4
    assert all(each.in_loop for each in found)
    assert sorted(each.bytes for each in found) == [2 * 4, 2 * 4, 2 * 11 * 4, 2 * 11 * 4]
