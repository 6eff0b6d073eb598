"""The states that clients keep between rounds: stacked, on the devices or in host memory.

All ways run the same functions, `Round.cohort` and `Round.train`, and give the same numbers. On
the devices, a client's state is a row of arrays [num_clients, ...] that are spread over the mesh,
and taking the cohort's rows out and putting them back is part of the compiled round. In host memory
they are NumPy arrays, or `HostRows` in a run of several processes, on a disk `DiskRows`, so that
clients whose states exceed the devices can be simulated: the cohort is chosen first, its rows go to
the devices, and they come back when the round is over.
"""

from functools import partial
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.mesh import replicated
from semanticfl_jax.devices.placement import put
from semanticfl_jax.federated.client_rows import put_rows, sharding, take_rows
from semanticfl_jax.federated.client_update import init_state
from semanticfl_jax.federated.disk_rows import DiskRows
from semanticfl_jax.federated.host_rows import HostRows
from semanticfl_jax.federated.kept_rows import KeptRows
from semanticfl_jax.federated.measured import RoundMetrics
from semanticfl_jax.federated.rates import Rates
from semanticfl_jax.federated.round import Round
from semanticfl_jax.federated.server_state import ServerState
from semanticfl_jax.types import PyTree


class RunRound(Protocol):
    """A whole round, which can be lowered and compiled as a jitted function; donates `state`."""

    def __call__(
        self,
        state: ServerState,
        data: FederatedDataset,
        shared: PyTree,
        key: jax.Array,
        rates: Rates,
    ) -> tuple[ServerState, RoundMetrics]:
        """Return the state after the round, and what was measured.

        Args:
          state: before the round, with the states of all clients.
          data: the clients' images.
          shared: `Algorithm.sent_once`.
          key: the run's.
          rates: the learning rates of the round.
        """


def init_clients(
    algorithm: Algorithm,
    model: Model,
    num_clients: int,
    mesh: Mesh,
    memory: str,
    directory: Path | None = None,
) -> PyTree:
    """Return every client's state before its first round, stacked; () if clients keep nothing.

    Args:
      algorithm: whose client rule and transforms say what one client keeps.
      model: the initial model.
      num_clients: N.
      mesh: the devices.
      memory: "device", "host" or "disk".
      directory: of the run, for states that are not in its checkpoints (`beside_checkpoints`);
        None: a temporary one for "disk".
    """

    def init(model: Model) -> PyTree:
        return init_state(algorithm, model)

    def stack(model: Model) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_clients, *x.shape)), init(model))

    if not jax.tree.leaves(jax.eval_shape(init, model)):
        return ()

    if memory == "device":
        return jax.jit(stack, out_shardings=sharding(mesh, num_clients))(model)
    one = jax.device_get(jax.jit(init, out_shardings=replicated(mesh))(model))
    if beside_checkpoints(memory) is None:
        return jax.tree.map(lambda x: np.repeat(x[None], num_clients, axis=0), one)
    process, processes = jax.process_index(), jax.process_count()
    if directory is not None and processes > 1:
        directory = directory / f"process-{process}-of-{processes}"
    own = len(range(process, num_clients, processes))
    return (DiskRows if memory == "disk" else HostRows)(one, own, directory)


def beside_checkpoints(memory: str) -> str | None:
    """Return which files beside a checkpoint hold the clients' states; None: it has them itself.

    Checkpoints that have them are the same for any memory and any number of processes.
    """
    count = jax.process_count()
    if memory == "disk":
        return f"in the files of client_state_memory=disk in {count} process{'es' * (count > 1)}"
    if memory == "host" and count > 1:
        return f"in the files of client_state_memory=host in {count} processes"
    return None


def join_clients(parts: Round, mesh: Mesh, memory: str) -> RunRound:
    """Build one function of a round and the clients' states: what a run calls.

    Returns:
      `run_round(state, data, shared, key, rates) -> (state, metrics)`, jitted; it donates `state`;
      from host memory, an object that is called and compiled in the same way.
    """
    if memory != "device":
        return HostRound(parts, mesh)

    def run_round(state, data, shared, key, rates):
        clients = _cohort(parts, mesh, state.round, data, key)
        if not jax.tree.leaves(state.clients):
            state, _, metrics = parts.train(state, clients, state.clients, data, shared, key, rates)
            return state, metrics
        rows = take_rows(state.clients, clients, mesh)
        everyone, state = state.clients, state._replace(clients=())
        state, rows, metrics = parts.train(state, clients, rows, data, shared, key, rates)
        everyone = put_rows(everyone, rows, clients, mesh)
        return state._replace(clients=everyone), metrics

    return jax.jit(run_round, donate_argnums=0)


def _cohort(
    parts: Round, mesh: Mesh, number: jax.Array, data: FederatedDataset, key: jax.Array
) -> jax.Array:
    """Return the ids of the round's clients by place: those whose images came with `data`, or all.

    Replicated, so that sums over the places are made in one order, wherever the images came from.
    """
    if data.cohort is None:
        return parts.cohort(number, data.sizes, key)
    return jax.lax.with_sharding_constraint(data.cohort, replicated(mesh))


class HostRound:
    """A round whose clients' states stay with the host; changes `state.clients` in place."""

    def __init__(self, parts: Round, mesh: Mesh):
        self._mesh, self._kept = mesh, KeptRows(mesh)
        # Replicated, so that every process can read it.
        cohort = partial(_cohort, parts, mesh)
        self._cohort = jax.jit(cohort, out_shardings=replicated(mesh))
        self._train = jax.jit(parts.train, donate_argnums=(0, 2))

    def __call__(self, state, data, shared, key, rates):
        """Run one round."""
        clients = self._cohort(state.round, data, key)
        everyone = state.clients
        rows = self._kept.take(everyone, np.asarray(clients))
        state = state._replace(clients=())
        state, rows, metrics = self._train(state, clients, rows, data, shared, key, rates)
        ids, number = jax.device_get((clients, state.round))  # heeds signals as it waits
        self._kept.put(everyone, rows, ids, int(number))
        return state._replace(clients=everyone), metrics

    def lower(self, state, data, shared, key, rates):
        """Lower it as a jitted function; `compile` follows."""
        self._cohort = self._cohort.lower(state.round, data, key).compile()
        places = self._cohort.out_info
        clients = np.zeros(places.shape, places.dtype)
        rows = self._kept.take(state.clients, clients)
        clients = put(clients, replicated(self._mesh))
        state = state._replace(clients=())
        self._train = self._train.lower(state, clients, rows, data, shared, key, rates)
        return self

    def compile(self):
        """Compile what was lowered."""
        self._train = self._train.compile()
        return self
