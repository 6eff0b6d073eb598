"""One federated round, compiled once.

    cohort -> [on each device, chunk by chunk: train -> client update -> transforms ->
    aggregator.add] -> aggregator.merge over devices -> aggregator.finish -> server rule

Clients are spread over the mesh; on each device, chunks of clients follow one another in a scan,
the clients of a chunk train side by side, and the aggregator takes their updates as they come.
Memory follows the chunk, not the cohort, unless the aggregator needs the single updates.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.aggregators import Updates
from semanticfl_jax.algorithms.base import Aggregate, Algorithm, Model
from semanticfl_jax.algorithms.trees import where
from semanticfl_jax.attacks.base import among
from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.mesh import CLIENTS, on_each_device, replicated
from semanticfl_jax.federated.aggregation import (
    Totals,
    add_chunk,
    finish,
    in_order,
    keeps_updates,
    merge_devices,
    no_totals,
    taken_of,
    without,
)
from semanticfl_jax.federated.arrivals import Arrivals
from semanticfl_jax.federated.chunks import Places, for_each, make_train_chunk, scan_chunks
from semanticfl_jax.federated.client_update import (
    colludes,
    finish_client,
    leave_out,
    rule_state,
)
from semanticfl_jax.federated.cohort import (
    cohort_places,
    draw_reporting,
    place_cohort,
    samples_of,
)
from semanticfl_jax.federated.contracts import require_server_step
from semanticfl_jax.federated.local_step import Broadcast, batch_rows
from semanticfl_jax.federated.local_training import LocalTraining
from semanticfl_jax.federated.measured import RoundMetrics, figures, measured
from semanticfl_jax.federated.rates import Rates
from semanticfl_jax.federated.root import train_root
from semanticfl_jax.federated.sampling import draw_cohort
from semanticfl_jax.federated.sending import broadcast_of, filled_places
from semanticfl_jax.federated.server_state import ServerState, next_state, unchanged
from semanticfl_jax.federated.side_by_side import by_steps
from semanticfl_jax.federated.uploads import with_own, with_zeros
from semanticfl_jax.federated.versions import begun_before, figures_of
from semanticfl_jax.randomness import RoundKeys, round_keys
from semanticfl_jax.types import PyTree


class DrawCohort(Protocol):
    """Draws a round's cohort."""

    def __call__(self, number: jax.Array, sizes: jax.Array, key: jax.Array) -> jax.Array:
        """Return the client ids in their places, int32 [places]; -1 in empty ones.

        Args:
          number: of the round, int32 scalar.
          sizes: int32 [N], samples of each client.
          key: the run's.
        """


class TrainCohort(Protocol):
    """Trains a cohort, and the server."""

    def __call__(
        self,
        state: ServerState,
        cohort: jax.Array,
        rows: PyTree,
        data: FederatedDataset,
        shared: PyTree,
        key: jax.Array,
        rates: Rates,
    ) -> tuple[ServerState, PyTree, RoundMetrics]:
        """Return the state after the round, the cohort's client states, and what was measured.

        Args:
          state: of the server; its `clients` are not touched.
          cohort: int32 [places], as drawn.
          rows: the cohort's client states, [places, ...], spread over the devices.
          data: the clients' images.
          shared: `Algorithm.sent_once`.
          key: the run's.
          rates: the learning rates of this round.
        """


class Round(NamedTuple):
    """A round's two halves, pure functions."""

    cohort: DrawCohort
    train: TrainCohort


def make_round(
    local_training: LocalTraining,
    algorithm: Algorithm,
    mesh: Mesh,
    config: ExperimentConfig,
    clients_per_chunk: int,
    *,
    steps: int | None = None,
    public: np.ndarray | None = None,
    arrivals: Arrivals | None = None,
    some_empty: bool = False,
    columns: Collection[str] = (),
) -> Round:
    """Build the round; `client_state` makes one jitted function of it.

    The cohort depends on the seed and the round, a client's randomness on these and its id: never
    on chunks or devices. A client that drops out is treated as an empty place; a round in which
    nobody reports changes nothing, unless noise has to be added.

    Args:
      local_training: of one client.
      algorithm: what is trained.
      mesh: the devices.
      config: the cohort, the batches, and what becomes of clients that diverge.
      clients_per_chunk: clients trained side by side on each device, at most.
      steps: of every client, if they all have as many (`local_training.known_steps`).
      public: the server's own training images, int [p], for an aggregator that needs them.
      arrivals: who reports in each round, and from which model they began; None: a cohort begins
        together.
      some_empty: whether some clients have no images, of whom alone a cohort may consist.
      columns: the names of what a round's row has besides the figures of the algorithm.
    """
    devices, most = mesh.devices.size, cohort_places(config)
    availability, batch_size = config.availability, config.batch_size
    skip_diverged = config.on_divergence == "skip_client"
    chunk = min(clients_per_chunk, -(-most // devices))
    poisson = availability.sampling == "poisson"
    sometimes_nobody = availability.dropout > 0 or poisson or skip_diverged or some_empty
    sometimes_nobody = sometimes_nobody and not algorithm.aggregator.adds_noise
    if poisson or most % (devices * chunk):  # empty places have no steps
        steps = None
    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)
    train_device = make_train_device(
        local_training, algorithm, chunk, batch_size, steps, skip_diverged
    )

    def cohort_of(number: jax.Array, sizes: jax.Array, key: jax.Array) -> jax.Array:
        if arrivals is not None:
            cohort = jnp.asarray(arrivals.clients)[number]
        else:
            asked = config.clients_per_round
            cohort = draw_cohort(availability.sampling, key, number, sizes, asked, most)
        return place_cohort(cohort, samples_of(cohort, sizes), batch_size, devices, chunk)

    def train(state, cohort, rows, data, shared, key, rates):
        keys = round_keys(key, state.round)
        reported = draw_reporting(key, state.round, cohort, availability.dropout)
        places, sizes = filled_places(algorithm, data, cohort, reported, rows)
        working = jnp.where(sizes > 0, places.clients, -1)
        broadcast, sent = broadcast_of(algorithm, state, rates, working, key), state.model
        if arrivals is not None:
            everyone, sent = data.sizes.shape[0], state.versions
            broadcast, places = begun_before(arrivals, state.round, broadcast, places, everyone)
        if algorithm.aggregator.needs_root:
            given = (state.model, broadcast, shared, data, public, keys.root)
            root = train_root(local_training, algorithm, *given)
            broadcast = broadcast._replace(aggregator=root)

        train_cohort = on_each_device(
            train_device,
            mesh,
            in_specs=(*[everywhere] * 3, data.specs(), spread, everywhere),
            out_specs=(everywhere, spread, spread, spread),
        )
        totals, after, updates, diverged = train_cohort(sent, broadcast, shared, data, places, keys)
        clients, used, taken = places.clients, sizes > 0, totals.update
        if updates is not None:
            updates = in_order(updates, cohort, most, mesh)
            taken, wrong = taken_of(algorithm, updates, broadcast, keys, skip_diverged)
            if colludes(algorithm):
                wrong &= used & ~diverged & among(broadcast.attackers, clients)
                totals, after = without(wrong & skip_diverged, totals, after, places)
                diverged |= wrong
        if skip_diverged:
            used, clients = used & ~diverged, jnp.where(diverged, -1, clients)
        weight = totals.weight if skip_diverged else None
        update, kept = finish(
            algorithm.aggregator, taken, keys.aggregator, state.aggregator, weight
        )
        update = with_zeros(algorithm, update, state.model)
        aggregate = Aggregate(
            update=update.params,
            extra=totals.extra,
            weight=1.0 if weight is None else jnp.where(weight > 0, weight, 1.0),
            participants=jnp.sum(used.astype(jnp.float32)),
            clients=clients,
            before=rule_state(rows),
            after=rule_state(after),
            rate=rates.server,
            key=keys.server_rule,
        )
        model, server = server_step(algorithm, state, aggregate, update.batch_stats)
        if sometimes_nobody:
            done = aggregate.participants > 0
            model, server, kept = where(done, (model, server, kept), unchanged(state))
        clock = {} if arrivals is None else figures_of(arrivals, state.round)
        own = figures(algorithm, totals, aggregate, server, kept, clock, columns)
        metrics = measured(totals, cohort, reported, state.contacted, diverged, model, own)
        # Replicated, so that every process can read all of them.
        metrics = jax.lax.with_sharding_constraint(metrics, replicated(mesh))
        return next_state(state, model, server, kept, cohort), after, metrics

    return Round(cohort_of, train)


class TrainDevice(Protocol):
    """Does one device's part of a round."""

    def __call__(
        self,
        received: Model,
        broadcast: Broadcast,
        shared: PyTree,
        data: FederatedDataset,
        places: Places,
        keys: RoundKeys,
    ) -> tuple[Totals, PyTree, Updates | None, jax.Array]:
        """Return the totals over all devices, and of this one's places what is kept.

        Args:
          received: the server's model.
          broadcast: what the server sends besides.
          shared: `Algorithm.sent_once`.
          data: the clients' images.
          places: of this device.
          keys: of the round.

        Returns:
          Totals, the clients' states, their updates, if the aggregator needs them, else None, and
          bool [places], who diverged.
        """


def make_train_device(
    local_training: LocalTraining,
    algorithm: Algorithm,
    chunk: int,
    batch_size: int,
    steps: int | None,
    skip_diverged: bool,
) -> TrainDevice:
    """Build what each device does in a round, inside `jax.shard_map`.

    Args:
      local_training: of one client.
      algorithm: its client rule, transforms and aggregator.
      chunk: clients trained side by side.
      batch_size: samples of a step.
      steps: of every client, if they are known and no place is empty.
      skip_diverged: whether clients that diverge are left out.
    """
    ragged, whole = chunk > 1 and steps is None, keeps_updates(algorithm)
    adding = None if whole else algorithm.aggregator
    train_chunk = make_train_chunk(local_training, chunk, steps=steps, ragged=ragged)

    def train_device(received, broadcast, shared, data, places, keys):
        own_round = (algorithm, received, broadcast, keys, data.sizes)
        finish = for_each(partial(finish_client, *own_round), chunk)

        def train_and_send(places):
            trained, computed = train_chunk(
                received,
                broadcast,
                shared,
                data,
                places.clients,
                rule_state(places.states),
                keys.local_training,
            )
            done = finish(*places, trained)
            if skip_diverged:
                done = for_each(leave_out, chunk)(done, places.states)
            return trained, computed, done

        def do_chunk(totals, places):
            trained, computed, done = train_and_send(places)
            absent = done.diverged & skip_diverged
            weights = jnp.where(absent, 0.0, places.weights)
            present = (trained.steps > 0) & ~absent
            updates = Updates(done.sent.update, weights, present, places.clients)
            rows = computed.astype(jnp.float32) * batch_rows(batch_size, data)
            totals = add_chunk(adding, totals, done, updates, trained, absent, rows)
            return totals, (done.state, updates if whole else None, done.diverged)

        order = None
        if ragged:
            states = rule_state(places.states)
            order = by_steps(
                local_training, broadcast, data, places.clients, states, keys.local_training
            )
        first = jax.tree.map(lambda x: x[:chunk], places)
        trained, _, done = jax.eval_shape(train_and_send, first)
        zeros = no_totals(adding, done, trained)
        totals, (states, updates, diverged) = scan_chunks(do_chunk, zeros, places, chunk, order)
        return merge_devices(adding, totals), states, updates, diverged

    return train_device


def server_step(
    algorithm: Algorithm, state: ServerState, aggregate: Aggregate, batch_stats: PyTree
) -> tuple[Model, PyTree]:
    """Return the server's model and its rule's state after a round.

    Args:
      algorithm: its server rule, and which part of the model travels.
      state: before the round.
      aggregate: what the rule sees.
      batch_stats: what was aggregated of the differences of running statistics.
    """
    rule = algorithm.server
    result = rule.update(state.server, state.params, aggregate)
    params, server = require_server_step(result, state.params, state.server, algorithm.name)
    batch_stats = jax.tree.map(jnp.add, state.batch_stats, batch_stats)
    if rule.batch_stats is not None:
        batch_stats = rule.batch_stats(server, batch_stats)
    return with_own(algorithm, Model(params, batch_stats), state.model), server
