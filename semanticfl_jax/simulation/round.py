"""One federated round, compiled once: cohort, local training, weighted sum, server step.

Clients are spread over the mesh; on each device, chunks of clients follow one another in a scan,
the clients of a chunk train side by side under vmap, and their weighted updates are summed as they
come. Memory follows the chunk, not the cohort: clients' models are never stacked beyond a chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.base import Algorithm
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.simulation.local_training import LocalTraining
from semanticfl_jax.simulation.mesh import CLIENTS

PyTree = Any

# Which stream of randomness a key starts; each is then folded with the round.
_COHORT, _LOCAL = 0, 1


class ServerState(NamedTuple):
    """Everything that goes from one round to the next.

    Attributes:
      params: {"model": ..., term name: ...}, float32.
      batch_stats: running statistics of batch normalisation, float32.
      optimizer: state of the server optimiser.
      contacted: bool [num_clients], clients that have taken part before.
      round: int32 scalar, rounds done.
    """

    params: PyTree
    batch_stats: PyTree
    optimizer: PyTree
    contacted: jax.Array
    round: jax.Array


class RoundMetrics(NamedTuple):
    """What a round measured; scalars but for the cohort.

    Attributes:
      train_loss: mean over the samples seen by the cohort, each epoch counting.
      images: samples trained on, each epoch counting.
      padding_share: share of computed batch rows that were padding.
      new_contacts: int32, participants taking part for the first time.
      new_samples: int32, training samples of those.
      cohort: int32 [places], client ids; -1 in empty places.
    """

    train_loss: jax.Array
    images: jax.Array
    padding_share: jax.Array
    new_contacts: jax.Array
    new_samples: jax.Array
    cohort: jax.Array


def init_server(
    params: PyTree, batch_stats: PyTree, algorithm: Algorithm, num_clients: int
) -> ServerState:
    """The state before round 1."""
    return ServerState(
        params=params,
        batch_stats=batch_stats,
        optimizer=algorithm.server_optimizer.init(params),
        contacted=jnp.zeros(num_clients, bool),
        round=jnp.zeros((), jnp.int32),
    )


def sample_cohort(key: jax.Array, num_clients: int, clients_per_round: int) -> jax.Array:
    """Distinct clients, uniformly at random: int32 [clients_per_round]."""
    ids = jnp.arange(num_clients, dtype=jnp.int32)
    return jax.random.choice(key, ids, (clients_per_round,), replace=False)


def place_cohort(cohort: jax.Array, sizes: jax.Array, devices: int, chunk: int) -> jax.Array:
    """Deals a cohort to devices and chunks so that clients of like size train side by side.

    Sorted by size and dealt in turn, devices get about equal work and the clients of a chunk about
    equal step counts, which keeps padding low.

    Args:
      cohort: int32 [m].
      sizes: int32 [m], samples of each.
      devices: how many devices share the cohort.
      chunk: clients trained at once on each.

    Returns:
      int32 [devices * places], the first `places` for the first device and so on; `places` is a
      multiple of `chunk`; -1 fills empty places.
    """
    places = -(-cohort.shape[0] // (devices * chunk)) * chunk
    order = jnp.argsort(-sizes, stable=True)
    filled = jnp.full(devices * places, -1, jnp.int32).at[: cohort.shape[0]].set(cohort[order])
    return filled.reshape(places, devices).T.reshape(-1)


def make_round(
    local_training: LocalTraining,
    algorithm: Algorithm,
    mesh: Mesh,
    *,
    clients_per_round: int,
    clients_per_chunk: int,
    batch_size: int,
) -> Callable[..., tuple[ServerState, RoundMetrics]]:
    """Builds the jitted round.

    Returns:
      `round(state, data, shared, key) -> (state, metrics)`; `state` is donated, `shared` is
      `Algorithm.sent_once`, `key` is the run's key. The cohort depends on (key, round), a client's
      randomness on (key, round, client id): never on chunks or devices.
    """
    devices = mesh.devices.size
    chunk = min(clients_per_chunk, -(-clients_per_round // devices))

    def train_device(params, batch_stats, shared, data, clients, weights, key):
        """Weighted sum of the updates of this device's clients, int32 [places]."""
        # Without this cast the gradient with respect to replicated parameters would be summed over
        # devices, and clients would mix.
        params, batch_stats = _varying((params, batch_stats))
        parameters = (params, batch_stats, shared, data)

        def train_one(client):
            client_key = jax.random.fold_in(key, client)
            return local_training(*parameters, client, client_key)

        def train_chunk(totals, inputs):
            ids, share = inputs
            if chunk == 1:  # a loop over clients needs no batched program
                one = train_one(ids[0])
                results = jax.tree.map(lambda x: x[None], one)
            else:
                results = jax.vmap(train_one)(ids)

            def weighted(x):
                return jnp.sum(share.reshape((-1,) + (1,) * (x.ndim - 1)) * x, axis=0)

            rows = jnp.max(results.steps).astype(jnp.float32) * (chunk * batch_size)
            update = (
                jax.tree.map(weighted, (results.params, results.batch_stats)),
                jnp.sum(results.loss_sum),
                jnp.sum(results.samples),
                rows,
            )
            return jax.tree.map(jnp.add, totals, update), None

        scalar = _varying(jnp.zeros(()))
        zeros = (jax.tree.map(jnp.zeros_like, (params, batch_stats)), scalar, scalar, scalar)
        chunks = (clients.reshape(-1, chunk), weights.reshape(-1, chunk))
        totals, _ = jax.lax.scan(train_chunk, zeros, chunks)
        return jax.lax.psum(totals, CLIENTS)

    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    train_cohort = jax.shard_map(
        train_device,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, everywhere, spread, spread, everywhere),
        out_specs=everywhere,
    )

    def federated_round(
        state: ServerState, data: FederatedDataset, shared: PyTree, key: jax.Array
    ) -> tuple[ServerState, RoundMetrics]:
        cohort_key = jax.random.fold_in(jax.random.fold_in(key, _COHORT), state.round)
        local_key = jax.random.fold_in(jax.random.fold_in(key, _LOCAL), state.round)
        cohort = sample_cohort(cohort_key, data.sizes.shape[0], clients_per_round)
        clients = place_cohort(cohort, data.sizes[cohort], devices, chunk)
        present = clients >= 0
        sizes = jnp.where(present, data.sizes[clients], 0)
        counts = jnp.where(present[:, None], data.label_counts[clients], 0)
        weights = algorithm.weights(sizes, counts)

        (delta, delta_stats), loss_sum, samples, rows = train_cohort(
            state.params, state.batch_stats, shared, data, clients, weights, local_key
        )
        new = ~state.contacted[cohort]
        gradient = jax.tree.map(jnp.negative, delta)
        updates, optimizer = algorithm.server_optimizer.update(
            gradient, state.optimizer, state.params
        )
        metrics = RoundMetrics(
            train_loss=loss_sum / samples,
            images=samples,
            padding_share=1.0 - samples / rows,
            new_contacts=jnp.sum(new),
            new_samples=jnp.sum(jnp.where(new, data.sizes[cohort], 0)),
            cohort=clients,
        )
        state = ServerState(
            params=optax.apply_updates(state.params, updates),
            batch_stats=jax.tree.map(jnp.add, state.batch_stats, delta_stats),
            optimizer=optimizer,
            contacted=state.contacted.at[cohort].set(True),
            round=state.round + 1,
        )
        return state, metrics

    return jax.jit(federated_round, donate_argnums=0)


def _varying(tree: PyTree) -> PyTree:
    """`tree` as values that may differ from device to device."""
    return jax.tree.map(lambda x: jax.lax.pcast(x, CLIENTS, to="varying"), tree)
