"""One federated round, compiled once: cohort, local training, weighted sum, server step.

Clients are spread over the mesh; on each device, chunks of clients follow one another in a scan,
the clients of a chunk train side by side (`side_by_side`), and their weighted updates are summed as
they come. Memory follows the chunk, not the cohort: clients' models are never stacked beyond it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.base import Aggregate, Algorithm, Model, Trained
from semanticfl_jax.config import AvailabilityConfig
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.mesh import CLIENTS, replicated, varying
from semanticfl_jax.federated.cohort import SAMPLERS, contacts, draw_reporting, place_cohort
from semanticfl_jax.federated.local_training import LocalResult, LocalTraining, batch_rows
from semanticfl_jax.federated.side_by_side import by_steps, train_side_by_side
from semanticfl_jax.types import PyTree

# The stream of the run's key that clients train with, folded with the round; others are in
# cohort.py and client_model.py.
_LOCAL = 1


class ServerState(NamedTuple):
    """Everything that goes from one round to the next.

    Attributes:
      params: {"model": ..., term name: ...}, float32.
      batch_stats: running statistics of batch normalisation, float32.
      server: state of the algorithm's server rule.
      clients: states of all clients, stacked: [num_clients, ...]; () if they keep nothing.
      contacted: bool [num_clients], clients that have taken part before.
      round: int32 scalar, rounds done.
    """

    params: PyTree
    batch_stats: PyTree
    server: PyTree
    clients: PyTree
    contacted: jax.Array
    round: jax.Array

    @property
    def model(self) -> Model:
        """The model that clients receive."""
        return Model(self.params, self.batch_stats)


class RoundMetrics(NamedTuple):
    """What a round measured; scalars but for the cohort.

    Attributes:
      train_loss: mean over the samples seen by the cohort, each epoch counting; NaN if nobody
        reported.
      images: samples trained on, each epoch counting.
      padding_share: share of computed batch rows that were padding.
      cohort: int32 [places], client ids; -1 in empty places.
      reported: bool [places], those of the cohort that did not drop out.
      new: bool [places], those of the cohort that were never asked before.
    """

    train_loss: jax.Array
    images: jax.Array
    padding_share: jax.Array
    cohort: jax.Array
    reported: jax.Array
    new: jax.Array


def init_server(
    params: PyTree, batch_stats: PyTree, algorithm: Algorithm, num_clients: int
) -> ServerState:
    """The state before round 1, without the clients' (`client_state.init_clients`)."""
    return ServerState(
        params=params,
        batch_stats=batch_stats,
        server=algorithm.server.init(Model(params, batch_stats)),
        clients=(),
        contacted=jnp.zeros(num_clients, bool),
        round=jnp.zeros((), jnp.int32),
    )


class Round(NamedTuple):
    """A round's two halves, pure functions.

    Attributes:
      cohort: (round, sizes [N], key) -> int32 [places], the client ids in their places.
      train: (state, cohort, rows, data, shared, key) -> (state, rows, metrics). `rows` are the
        cohort's client states, [places, ...], spread over the devices; `state.clients` is not
        touched.
    """

    cohort: Callable[..., jax.Array]
    train: Callable[..., tuple[ServerState, PyTree, RoundMetrics]]


def make_round(
    local_training: LocalTraining,
    algorithm: Algorithm,
    mesh: Mesh,
    *,
    clients_per_round: int,
    clients_per_chunk: int,
    batch_size: int,
    availability: AvailabilityConfig,
    steps: int | None = None,
) -> Round:
    """Builds the round; `client_state` makes one jitted function of it.

    `steps` are those of every client, if they all have as many (`local_training.known_steps`).

    `shared` is `Algorithm.sent_once`, `key` is the run's key. The cohort depends on (key, round), a
    client's randomness on (key, round, client id): never on chunks or devices. A client that drops
    out is treated as an empty place; a round in which nobody reports changes nothing.
    """
    devices = mesh.devices.size
    chunk = min(clients_per_chunk, -(-clients_per_round // devices))
    if clients_per_round % (devices * chunk):  # empty places have no steps
        steps = None
    rule = algorithm.client

    def train_device(model, broadcast, shared, data, clients, weights, states, key):
        """Sums over this device's clients, int32 [places], and what those keep."""
        # Without this cast the gradient with respect to replicated parameters would be summed over
        # devices, and clients would mix.
        model, broadcast = varying((model, broadcast))

        def alone(client, weight, state):
            client_key = jax.random.fold_in(key, client)
            result = local_training.alone(
                model, broadcast, shared, data, client, state, client_key, steps
            )
            return outcome(result, weight, state)

        def outcome(result, weight, state):
            update, statistics = jax.tree.map(jnp.subtract, result.model, model)
            measured = (result.loss_sum, result.samples, result.steps)
            if rule is None:
                return (update, statistics), (), state, measured
            finished = rule.finish(_trained(result, state, broadcast, model, weight))
            worked = result.steps > 0  # else it may have divided by zero
            if finished.update is not None:
                update = _where(worked, finished.update, jax.tree.map(jnp.zeros_like, update))
            extra = _where(worked, finished.extra, jax.tree.map(jnp.zeros_like, finished.extra))
            return (update, statistics), extra, _where(worked, finished.state, state), measured

        def train_chunk(totals, inputs):
            ids, share, states = inputs
            if chunk == 1:  # a loop over clients needs no batched program
                one = alone(*jax.tree.map(lambda x: x[0], inputs))
                results = jax.tree.map(lambda x: x[None], one)
                computed = one[-1][-1]
            elif steps is not None:
                results = jax.vmap(alone)(ids, share, states)
                computed = jnp.sum(results[-1][-1])
            else:
                trained, computed = train_side_by_side(
                    local_training, model, broadcast, shared, data, ids, states, key
                )
                results = jax.vmap(outcome)(trained, share, states)
            updates, extras, states, (loss_sum, samples, _) = results

            def weighted(x):
                return jnp.sum(share.reshape((-1,) + (1,) * (x.ndim - 1)) * x, axis=0)

            rows = computed.astype(jnp.float32) * batch_rows(batch_size, data)
            summed = (
                jax.tree.map(weighted, updates),
                jax.tree.map(lambda x: jnp.sum(x, axis=0), extras),
                jnp.sum(loss_sum),
                jnp.sum(samples),
                rows,
            )
            return jax.tree.map(jnp.add, totals, summed), states

        def in_chunks(x):
            return x.reshape(-1, chunk, *x.shape[1:])

        places = (clients, weights, states)
        ragged = chunk > 1 and steps is None
        if ragged:
            order = by_steps(local_training, broadcast, data, clients, states, key)
            places = jax.tree.map(lambda x: x[order], places)
        chunks = jax.tree.map(in_chunks, places)
        shapes = jax.eval_shape(alone, *jax.tree.map(lambda x: x[0, 0], chunks))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[:2])
        scalar = jnp.zeros(())
        zeros = varying((*zeros, scalar, scalar, scalar))
        totals, states = jax.lax.scan(train_chunk, zeros, chunks)
        states = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)
        if ragged:
            back = jnp.argsort(order)
            states = jax.tree.map(lambda x: x[back], states)
        return jax.lax.psum(totals, CLIENTS), states

    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    train_cohort = jax.shard_map(
        train_device,
        mesh=mesh,
        in_specs=(*[everywhere] * 4, spread, spread, spread, everywhere),
        out_specs=(everywhere, spread),
    )

    def cohort_of(number: jax.Array, sizes: jax.Array, key: jax.Array) -> jax.Array:
        cohort = SAMPLERS[availability.sampling](key, number, sizes, clients_per_round)
        return place_cohort(cohort, sizes[cohort], batch_size, devices, chunk)

    def train(
        state: ServerState,
        cohort: jax.Array,
        rows: PyTree,
        data: FederatedDataset,
        shared: PyTree,
        key: jax.Array,
    ) -> tuple[ServerState, PyTree, RoundMetrics]:
        local_key = jax.random.fold_in(jax.random.fold_in(key, _LOCAL), state.round)
        reported = draw_reporting(key, state.round, cohort, availability.dropout)
        clients = jnp.where(reported, cohort, -1)
        sizes = jnp.where(reported, data.sizes[clients], 0)
        counts = jnp.where(reported[:, None], data.label_counts[clients], 0)
        weights = algorithm.weights(sizes, counts)
        broadcast = algorithm.server.broadcast(state.server)

        sums, after = train_cohort(
            state.model, broadcast, shared, data, clients, weights, rows, local_key
        )
        (delta, delta_stats), extra, loss_sum, samples, computed = sums
        aggregate = Aggregate(
            update=delta,
            batch_stats=delta_stats,
            extra=extra,
            participants=jnp.sum((sizes > 0).astype(jnp.float32)),
            clients=clients,
            before=rows,
            after=after,
        )
        model, server = algorithm.server.update(state.server, state.model, aggregate)
        if availability.dropout > 0:
            unchanged = (state.model, state.server)
            model, server = _where(aggregate.participants > 0, (model, server), unchanged)
        # Replicated, so that every process can read all of them.
        metrics = RoundMetrics(
            train_loss=loss_sum / samples,
            images=samples,
            padding_share=1.0 - samples / computed,
            cohort=cohort,
            reported=reported,
            new=(cohort >= 0) & ~state.contacted[cohort],
        )
        metrics = jax.lax.with_sharding_constraint(metrics, replicated(mesh))
        state = ServerState(
            params=model.params,
            batch_stats=model.batch_stats,
            server=server,
            clients=state.clients,
            contacted=state.contacted | contacts(cohort, state.contacted.shape[0]),
            round=state.round + 1,
        )
        return state, after, metrics

    return Round(cohort_of, train)


def _trained(
    result: LocalResult, state: PyTree, broadcast: PyTree, received: Model, weight: jax.Array
) -> Trained:
    return Trained(
        state=state,
        broadcast=broadcast,
        received=received,
        model=result.model,
        steps=result.steps,
        weight=weight,
        loss=result.last_loss,
    )


def _where(condition: jax.Array, chosen: PyTree, otherwise: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), chosen, otherwise)
