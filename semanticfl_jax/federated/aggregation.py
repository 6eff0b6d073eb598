"""The aggregation of a round: totals on each device and over them, or the updates in order."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from semanticfl_jax.algorithms.aggregators import Aggregator, Updates
from semanticfl_jax.algorithms.base import Algorithm, Model
from semanticfl_jax.algorithms.trees import rows
from semanticfl_jax.attacks.base import among
from semanticfl_jax.devices.memory import size_in_bytes
from semanticfl_jax.devices.mesh import CLIENTS, replicated
from semanticfl_jax.federated.chunks import Places
from semanticfl_jax.federated.client_update import Done, all_finite, colludes, sender_of
from semanticfl_jax.federated.contracts import require_aggregated
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import LocalResult
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.randomness import RoundKeys
from semanticfl_jax.types import PyTree


class Totals(NamedTuple):
    """What is added up over the clients of a round.

    Attributes:
      update: the aggregator's totals; () if it needs the single updates.
      extra: sum of what clients send besides.
      weight: float32 scalar, the weights of the clients that are aggregated: 1, unless some that
        diverged are left out.
      loss: float32 scalar, their training loss summed over samples.
      counted: float32 scalar, the samples that `loss` is of.
      samples: float32 scalar, samples trained on, each epoch counting.
      rows: float32 scalar, rows of batches computed, padding included.
      terms: of each term that is measured its value, summed as `loss`: float32 scalars.
      figures: of each figure of the client rule float32 [2]: its sum over those of these clients
        that trained, and how many they are.
    """

    update: PyTree
    extra: PyTree
    weight: jax.Array
    loss: jax.Array
    counted: jax.Array
    samples: jax.Array
    rows: jax.Array
    terms: Mapping[str, jax.Array]
    figures: Mapping[str, jax.Array]


def keeps_updates(algorithm: Algorithm) -> bool:
    """Return whether a cohort's updates are kept until it is done, and not added as they come."""
    return algorithm.aggregator.needs_updates or colludes(algorithm)


def no_totals(aggregator: Aggregator | None, done: Done, trained: LocalResult) -> Totals:
    """Return the totals before the first client, inside `jax.shard_map`.

    Args:
      aggregator: that will add to them; None: updates are kept.
      done: the shapes of what the clients of a chunk come to, [C, ...].
      trained: the shapes of what they do.
    """
    update, extra = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), done.sent)
    start = () if aggregator is None else aggregator.init(update)
    extra = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), extra)
    zero = jnp.zeros(())
    terms = dict.fromkeys(trained.terms, zero)
    figures = dict.fromkeys(done.figures, jnp.zeros(2))
    return Totals(start, extra, zero, zero, zero, zero, zero, terms, figures)


def add_chunk(
    aggregator: Aggregator | None,
    totals: Totals,
    done: Done,
    updates: Updates,
    trained: LocalResult,
    left_out: jax.Array,
    rows: jax.Array,
) -> Totals:
    """Return the totals with those of a chunk of C clients added.

    Args:
      aggregator: adds their updates; None: they are kept.
      totals: so far.
      done: what they came to, [C, ...].
      updates: the updates that they sent, with their weights.
      trained: what they did, [C].
      left_out: bool [C], those whose loss does not count either.
      rows: float32 scalar, rows of batches that were computed.
    """
    update = totals.update if aggregator is None else aggregator.add(totals.update, updates)
    present = updates.present

    def over_clients(figure: jax.Array) -> jax.Array:
        # Without a step it may have divided by zero.
        return jnp.stack([jnp.sum(jnp.where(present, figure, 0.0)), jnp.sum(present)])

    summed = (
        jax.tree.map(lambda x: jnp.sum(x, axis=0), done.sent.extra),
        jnp.sum(updates.weights),
        jnp.sum(jnp.where(left_out, 0.0, trained.loss_sum)),
        jnp.sum(jnp.where(left_out, 0.0, trained.samples)),
        jnp.sum(trained.samples),
        rows,
        jax.tree.map(lambda x: jnp.sum(jnp.where(left_out, 0.0, x)), trained.terms),
        jax.tree.map(over_clients, done.figures),
    )
    return Totals(update, *jax.tree.map(jnp.add, tuple(totals[1:]), summed))


def merge_devices(aggregator: Aggregator | None, totals: Totals) -> Totals:
    """Return the totals over all devices, inside `jax.shard_map`."""
    update = totals.update if aggregator is None else aggregator.merge(totals.update, CLIENTS)
    return Totals(update, *jax.lax.psum(tuple(totals[1:]), CLIENTS))


def taken_of(
    algorithm: Algorithm,
    updates: Updates,
    broadcast: Broadcast,
    keys: RoundKeys,
    skip_diverged: bool,
) -> tuple[PyTree, jax.Array]:
    """Return the aggregator's input: the kept updates, or their totals.

    Args:
      algorithm: its aggregator and its attack.
      updates: of the cohort, in order; honest ones where attackers collude.
      broadcast: what the server sent.
      keys: of the round.
      skip_diverged: whether attackers who agree on what is not finite are left out.

    Returns:
      That, and whether what attackers agreed on is not finite, a bool scalar.
    """
    aggregator, wrong = algorithm.aggregator, jnp.zeros((), bool)
    if colludes(algorithm):
        updates, wrong = _colluding(algorithm, updates, broadcast, keys, skip_diverged)
    if aggregator.needs_updates:
        return _normalized(updates), wrong
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), updates.update)
    return aggregator.add(aggregator.init(shapes), updates), wrong


def _normalized(updates: Updates) -> Updates:
    """Return the updates with weights that sum to 1, whoever is left out."""
    total = jnp.sum(updates.weights)
    return updates._replace(weights=updates.weights / jnp.where(total > 0, total, 1.0))


def _colluding(
    algorithm: Algorithm,
    updates: Updates,
    broadcast: Broadcast,
    keys: RoundKeys,
    skip_diverged: bool,
) -> tuple[Updates, jax.Array]:
    """Return the updates with those of the attackers, encoded where the aggregator does it.

    And whether theirs are not finite.
    """
    attack, encode = algorithm.attack, algorithm.aggregator.encode
    who = updates.present & among(broadcast.attackers, updates.clients)
    sent = attack.collude(updates, who)
    wrong = ~all_finite(sent) & jnp.any(who)
    changed = jax.tree.map(lambda x, one: jnp.where(rows(who, x), one, x), updates.update, sent)
    present = updates.present
    if skip_diverged:
        out = who & wrong
        present = present & ~out
        changed = jax.tree.map(lambda x: jnp.where(rows(out, x), 0.0, x), changed)
        updates = updates._replace(present=present, weights=jnp.where(out, 0.0, updates.weights))
    if encode is None:
        return updates._replace(update=changed), wrong

    def encoded(update: PyTree, client: jax.Array, weight: jax.Array, present: jax.Array) -> PyTree:
        sender = sender_of(client, weight, keys, broadcast)
        update = encode(update, broadcast.aggregator, sender)
        return jax.tree.map(lambda x: jnp.where(present, x, jnp.zeros_like(x)), update)

    changed = jax.vmap(encoded)(changed, updates.clients, updates.weights, present)
    return updates._replace(update=changed), wrong


def finish(
    aggregator: Aggregator,
    taken: PyTree,
    key: jax.Array,
    state: PyTree,
    weight: jax.Array | None = None,
) -> tuple[PyTree, PyTree]:
    """Return the aggregated update, and the aggregator's state after the round.

    Args:
      aggregator: of the algorithm.
      taken: its totals over all devices, or the `Updates` that it needs.
      key: of the round, in the stream `AGGREGATOR`.
      state: before the round; () if it keeps nothing.
      weight: float32 scalar, the sum of the weights of those who are not left out; None: nobody is.
    """
    if aggregator.start is None:
        return over_those_left(aggregator, aggregator.finish(taken, key), weight), state
    # Before, so that what it keeps is of the scale of other rounds.
    result = aggregator.finish(over_those_left(aggregator, taken, weight), key, state)
    return require_aggregated(result, state, aggregator.name)


def in_order(updates: Updates, cohort: jax.Array, count: int, mesh: Mesh) -> Updates:
    """Return the cohort's updates in the order of the clients' ids, whole on every device.

    What an aggregator sees is so the same, however the cohort was placed on devices and chunks.

    Args:
      updates: [places, ...], spread over the devices.
      cohort: int32 [places], who was asked; -1 in empty places.
      count: clients of the cohort, m.
      mesh: the devices.
    """
    last = jnp.iinfo(cohort.dtype).max
    order = jnp.argsort(jnp.where(cohort < 0, last, cohort))[:count]
    updates = jax.tree.map(lambda x: x[order], updates)
    return jax.lax.with_sharding_constraint(updates, replicated(mesh))


def without(
    out: jax.Array, totals: Totals, states: PyTree, places: Places
) -> tuple[Totals, PyTree]:
    """Return the totals, and the clients' states, without attackers who are left out at the server.

    Args:
      out: bool [places], who they are; their own training went well, and its loss counts.
      totals: over all devices; the weights of those who are left out are taken off.
      states: of the clients after the round, [places, ...]; theirs become those before it.
      places: the cohort, with the states before the round.
    """
    weight = totals.weight - jnp.sum(jnp.where(out, places.weights, 0.0))
    states = jax.tree.map(lambda x, old: jnp.where(rows(out, x), old, x), states, places.states)
    return totals._replace(weight=weight), states


def over_those_left(aggregator: Aggregator, update: PyTree, weight: jax.Array | None) -> PyTree:
    """Return an aggregated update of clients whose weights sum to `weight`, not to 1, as a mean."""
    if weight is None or aggregator.needs_updates or not aggregator.weighted:
        return update
    return jax.tree.map(lambda x: x / jnp.where(weight > 0, weight, 1.0), update)


def updates_in_bytes(algorithm: Algorithm, model: Model, clients_per_round: int) -> int:
    """Return the bytes on each device of a cohort's updates side by side; 0 if they are not needed.

    Args:
      algorithm: its aggregator, and which part of the model travels.
      model: the model, or its shapes.
      clients_per_round: m.
    """
    if not keeps_updates(algorithm):
        return 0
    return clients_per_round * size_in_bytes(travelling(algorithm, model))
