"""Clients' states that the host keeps: the cohort's rows to the devices that train them, and back.

In a run of one process all states are its own: NumPy arrays, or files. In a run of P, client i's is
with process i modulo P, in its memory or in its files. Each process puts those of the cohort that
it keeps on its own devices; from there they travel in the ring of `client_rows`, and back the same
way. So each process sends about the rows of the whole cohort to its neighbour, twice a round:
2 (D - 1) / D of them, with D devices.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.devices.mesh import replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.client_rows import put_rows, take_rows
from semanticfl_jax.federated.disk_rows import DiskRows
from semanticfl_jax.federated.host_rows import HostRows
from semanticfl_jax.types import PyTree

#: The states that one process keeps of its share of the clients.
OwnRows = DiskRows | HostRows


class Table(NamedTuple):
    """Where the rows of a cohort lie on the devices of those that keep them.

    Attributes:
      slots: rows on each device.
      positions: int32 [places], each one's row in all devices' together; -1 in empty places.
      kept: for each process, the ids that it keeps, in the order of their rows.
    """

    slots: int
    positions: np.ndarray
    kept: list[np.ndarray]


def make_table(ids: np.ndarray, processes: int, devices: int) -> Table:
    """Return the table of a cohort, int32 [places]; -1 is nobody.

    Slots are a power of two, so that few programs serve all cohorts.

    Args:
      ids: of different clients.
      processes: that keep them, client i by process i modulo their number.
      devices: of all processes, equally many of each, theirs in a row.
    """
    each = devices // processes
    kept = [ids[(ids >= 0) & (ids % processes == process)] for process in range(processes)]
    most = max(len(own) for own in kept)
    slots = 1 << (max(1, -(-most // each)) - 1).bit_length()
    position = {
        client: process * each * slots + place
        for process, own in enumerate(kept)
        for place, client in enumerate(own.tolist())
    }
    positions = np.array([position.get(client, -1) for client in ids.tolist()], np.int32)
    return Table(slots, positions, kept)


class KeptRows:
    """Takes rows out of what the host keeps, and puts them back."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._take = jax.jit(take_rows, static_argnums=2, out_shardings=split(mesh))
        self._put = jax.jit(_to_keepers, static_argnums=(2, 3), out_shardings=split(mesh))

    def take(self, everyone: PyTree, ids: np.ndarray) -> PyTree:
        """Return the rows of clients `ids` int32 [places], spread over the devices.

        Args:
          everyone: `OwnRows`, or in a run of one process arrays [num_clients, ...].
          ids: -1 gets any.
        """
        if jax.process_count() == 1:
            some = np.maximum(ids, 0)
            if isinstance(everyone, OwnRows):
                rows = everyone.take(some)
            else:
                rows = jax.tree.map(lambda x: x[some], everyone)
            return jax.device_put(rows, split(self._mesh))
        table = self._table(ids)
        own = table.kept[jax.process_index()] // jax.process_count()
        here = table.slots * len(self._mesh.local_devices)

        def on_devices(rows: np.ndarray) -> jax.Array:
            padded = np.zeros((here, *rows.shape[1:]), rows.dtype)
            padded[: len(rows)] = rows
            shape = (table.slots * self._mesh.devices.size, *rows.shape[1:])
            return jax.make_array_from_process_local_data(split(self._mesh), padded, shape)

        lying = jax.tree.map(on_devices, everyone.take(own))
        return self._take(lying, put(table.positions, replicated(self._mesh)), self._mesh)

    def put(self, everyone: PyTree, rows: PyTree, ids: np.ndarray, number: int) -> None:
        """Put back the rows of clients `ids`, as `take` gave them.

        Args:
          everyone: as for `take`; it is changed.
          rows: [places, ...], spread over the devices.
          ids: int32 [places]; -1 is nobody.
          number: of the round that changed them, from 1.
        """
        if jax.process_count() == 1:
            present = ids >= 0
            ids = ids[present]
            rows = jax.tree.map(lambda row: row[present], jax.device_get(rows))
            if isinstance(everyone, OwnRows):
                everyone.put(ids, rows, number)
            else:
                jax.tree.map(lambda x, row: np.ndarray.__setitem__(x, ids, row), everyone, rows)
            return
        table = self._table(ids)
        own = table.kept[jax.process_index()]
        total = table.slots * self._mesh.devices.size
        positions = put(table.positions, replicated(self._mesh))
        lying = self._put(rows, positions, total, self._mesh)

        def of_process(x: jax.Array) -> np.ndarray:
            shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
            return np.concatenate([np.asarray(shard.data) for shard in shards])[: len(own)]

        everyone.put(own // jax.process_count(), jax.tree.map(of_process, lying), number)

    def _table(self, ids: np.ndarray) -> Table:
        return make_table(ids, jax.process_count(), self._mesh.devices.size)


def _to_keepers(rows: PyTree, positions: jax.Array, total: int, mesh: Mesh) -> PyTree:
    """Return `rows` [places, ...] at their `positions` of `total`, spread over the devices."""
    empty = jax.tree.map(lambda x: jnp.zeros((total, *x.shape[1:]), x.dtype), rows)
    return put_rows(empty, rows, positions, mesh)
