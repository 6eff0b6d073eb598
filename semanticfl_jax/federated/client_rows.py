"""Rows of the clients' states, from the devices that keep them to those that train them, and back.

States are spread over the devices by client, a cohort by place. Left to XLA, every device would
hold the rows of the whole cohort for a moment: with 1,024 clients a round of 20 MB each, more than
a device has. Here the rows travel in a ring: a device passes on one device's share of the cohort at
a time, all arrays of a type as one, so that memory follows that share, and the program has as many
exchanges for any network and any number of devices. Rows are moved, never computed with, so that
numbers are the same to the bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from semanticfl_jax.devices.mesh import CLIENTS, on_each_device, replicated, split
from semanticfl_jax.types import PyTree


def sharding(mesh: Mesh, num_clients: int) -> NamedSharding:
    """Return the sharding of clients' rows: spread over the devices if they come out even."""
    return split(mesh) if num_clients % mesh.devices.size == 0 else replicated(mesh)


def take_rows(everyone: PyTree, clients: jax.Array, mesh: Mesh) -> PyTree:
    """Return the rows of `clients` int32 [places], spread over the devices; any in empty places.

    Args:
      everyone: states of all clients, [num_clients, ...], as `sharding` has them.
      clients: ids by place; -1 in empty ones. `places` is a multiple of the devices.
      mesh: the devices.
    """
    devices, number = mesh.devices.size, _number(everyone)
    kept = sharding(mesh, number).spec

    def on_device(everyone: PyTree, clients: jax.Array) -> PyTree:
        place, blocks = jax.lax.axis_index(CLIENTS), clients.reshape(devices, -1)
        if kept == PartitionSpec():
            return _rows(everyone, jnp.maximum(blocks[place], 0))
        here = number // devices

        def fill(turn: Any, rows: list[jax.Array]) -> list[jax.Array]:
            """Put in those rows that are kept here, of the share that is here in this turn."""
            ids = blocks[(place - 1 - turn) % devices] - place * here
            mine = (ids >= 0) & (ids < here)
            found = _joined(_rows(everyone, jnp.clip(ids, 0, here - 1)))
            return [
                jnp.where(mine[:, None], new, old) for new, old in zip(found, rows, strict=True)
            ]

        nothing = _rows(everyone, jnp.zeros_like(blocks[0]))
        rows = jax.lax.fori_loop(
            0, devices - 1, lambda turn, rows: _pass_on(fill(turn, rows), devices), _joined(nothing)
        )
        return _parted(fill(devices - 1, rows), nothing)

    return on_each_device(on_device, mesh, (kept, PartitionSpec()), PartitionSpec(CLIENTS))(
        everyone, clients
    )


def put_rows(everyone: PyTree, rows: PyTree, clients: jax.Array, mesh: Mesh) -> PyTree:
    """Return the states of all clients with `rows` [places, ...] in place of those of `clients`.

    Arguments as of `take_rows`, and its result; empty places are dropped.
    """
    devices, number = mesh.devices.size, _number(everyone)
    kept = sharding(mesh, number).spec
    spread = kept != PartitionSpec()

    def on_device(everyone: PyTree, rows: PyTree, clients: jax.Array) -> PyTree:
        place, blocks = jax.lax.axis_index(CLIENTS), clients.reshape(devices, -1)
        here = number // devices if spread else number

        def put(turn: Any, everyone: PyTree, joined: list[jax.Array]) -> PyTree:
            ids = blocks[(place - turn) % devices]
            local = ids - place * here if spread else ids
            # Those kept elsewhere, and empty places, are put beyond the last row: dropped.
            local = jnp.where((ids >= 0) & (local >= 0), local, here)
            return jax.tree.map(
                lambda x, row: x.at[local].set(row, mode="drop"), everyone, _parted(joined, rows)
            )

        def turn(number: Any, carry: tuple[PyTree, list[jax.Array]]):
            everyone, joined = carry
            return put(number, everyone, joined), _pass_on(joined, devices)

        joined = _joined(rows)
        everyone, joined = jax.lax.fori_loop(0, devices - 1, turn, (everyone, joined))
        return put(devices - 1, everyone, joined)

    return on_each_device(on_device, mesh, (kept, PartitionSpec(CLIENTS), PartitionSpec()), kept)(
        everyone, rows, clients
    )


def _number(everyone: PyTree) -> int:
    return jax.tree.leaves(everyone)[0].shape[0]


def _rows(everyone: PyTree, local: jax.Array) -> PyTree:
    return jax.tree.map(lambda x: jnp.take(x, local, axis=0, mode="clip"), everyone)


def _pass_on(rows: list[jax.Array], devices: int) -> list[jax.Array]:
    """Return the neighbour's rows."""
    ring = [(device, (device + 1) % devices) for device in range(devices)]
    return [jax.lax.ppermute(x, CLIENTS, ring) for x in rows]


def _by_type(tree: PyTree) -> dict[Any, list[int]]:
    """Return the places of a tree's arrays in its order, by their type."""
    found: dict[Any, list[int]] = {}
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        found.setdefault(leaf.dtype, []).append(index)
    return found


def _joined(rows: PyTree) -> list[jax.Array]:
    """Return the arrays [L, ...] of each type as one, [L, length]."""
    leaves = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(rows)]
    take = partial(map, leaves.__getitem__)
    return [jnp.concatenate(list(take(places)), axis=1) for places in _by_type(rows).values()]


def _parted(joined: list[jax.Array], like: PyTree) -> PyTree:
    """Return what `_joined` joined, in the form of `like`."""
    leaves, form = jax.tree.flatten(like)
    for whole, places in zip(joined, _by_type(like).values(), strict=True):
        begin = 0
        for place in places:
            shape = leaves[place].shape
            length = leaves[place].size // max(1, shape[0])
            leaves[place] = whole[:, begin : begin + length].reshape(shape)
            begin += length
    return jax.tree.unflatten(form, leaves)
