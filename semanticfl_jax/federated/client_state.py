"""The states that clients keep between rounds: stacked, on the devices or in host memory.

Both ways run the same functions, `Round.cohort` and `Round.train`, and give the same numbers. On
the devices, a client's state is a row of arrays [num_clients, ...] that are spread over the mesh,
and taking the cohort's rows out and putting them back is part of the compiled round. In host memory
they are NumPy arrays, so that clients whose states exceed the devices can be simulated: the cohort
is chosen first, its rows go to the devices, and they come back when the round is over.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.mesh import split
from semanticfl_jax.federated.client_rows import put_rows, sharding, take_rows
from semanticfl_jax.federated.client_update import init_state
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
    algorithm: Algorithm, model: Model, num_clients: int, mesh: Mesh, memory: str
) -> PyTree:
    """Return every client's state before its first round, stacked; () if clients keep nothing.

    Args:
      algorithm: whose client rule and transforms say what one client keeps.
      model: the initial model.
      num_clients: N.
      mesh: the devices.
      memory: "device" or "host".
    """

    def init(model: Model) -> PyTree:
        return init_state(algorithm, model)

    def stack(model: Model) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_clients, *x.shape)), init(model))

    if not jax.tree.leaves(jax.eval_shape(init, model)):
        return ()

    if memory == "device":
        return jax.jit(stack, out_shardings=sharding(mesh, num_clients))(model)
    one = jax.device_get(jax.jit(init)(model))
    return jax.tree.map(lambda x: np.repeat(x[None], num_clients, axis=0), one)


def join_clients(parts: Round, mesh: Mesh, memory: str) -> RunRound:
    """Build one function of a round and the clients' states: what a run calls.

    Returns:
      `run_round(state, data, shared, key, rates) -> (state, metrics)`, jitted; it donates `state`;
      from host memory, an object that is called and compiled in the same way.
    """
    if memory == "host":
        return HostRound(parts, mesh)

    def run_round(state, data, shared, key, rates):
        clients = parts.cohort(state.round, data.sizes, key)
        if not jax.tree.leaves(state.clients):
            state, _, metrics = parts.train(state, clients, state.clients, data, shared, key, rates)
            return state, metrics
        rows = take_rows(state.clients, clients, mesh)
        everyone, state = state.clients, state._replace(clients=())
        state, rows, metrics = parts.train(state, clients, rows, data, shared, key, rates)
        everyone = put_rows(everyone, rows, clients, mesh)
        return state._replace(clients=everyone), metrics

    return jax.jit(run_round, donate_argnums=0)


class HostRound:
    """A round whose clients' states stay in host memory; changes `state.clients` in place."""

    def __init__(self, parts: Round, mesh: Mesh):
        self._mesh = mesh
        self._cohort = jax.jit(parts.cohort)
        self._train = jax.jit(parts.train, donate_argnums=(0, 2))

    def __call__(self, state, data, shared, key, rates):
        """Run one round."""
        clients = self._cohort(state.round, data.sizes, key)
        everyone, rows = state.clients, self._rows(state.clients, clients)
        state = state._replace(clients=())
        state, rows, metrics = self._train(state, clients, rows, data, shared, key, rates)
        ids, rows = jax.device_get((clients, rows))  # heeds signals as it waits, unlike NumPy
        present = ids >= 0

        def put_back(x, row):
            x[ids[present]] = row[present]

        jax.tree.map(put_back, everyone, rows)
        return state._replace(clients=everyone), metrics

    def lower(self, state, data, shared, key, rates):
        """Lower it as a jitted function; `compile` follows."""
        clients = self._cohort(state.round, data.sizes, key)
        rows = self._rows(state.clients, clients)
        self._cohort = self._cohort.lower(state.round, data.sizes, key).compile()
        state = state._replace(clients=())
        self._train = self._train.lower(state, clients, rows, data, shared, key, rates)
        return self

    def compile(self):
        """Compile what was lowered."""
        self._train = self._train.compile()
        return self

    def _rows(self, everyone, clients):
        some = np.maximum(np.asarray(clients), 0)
        return jax.device_put(jax.tree.map(lambda x: x[some], everyone), split(self._mesh))
