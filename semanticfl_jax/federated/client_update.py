"""What a trained client sends and keeps: its rule's update, what travels of it, transformed.

A client's state is its rule's. Where a transform keeps one, too, both are in `ClientState`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.algorithms.aggregators import Sender
from semanticfl_jax.algorithms.base import Algorithm, Beginning, Model, Trained
from semanticfl_jax.algorithms.trees import where
from semanticfl_jax.attacks.base import among
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.federated.cohort import samples_of
from semanticfl_jax.federated.contracts import (
    as_arrays,
    require_begun,
    require_finished,
    require_model,
    require_transformed,
)
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import LocalResult
from semanticfl_jax.federated.uploads import travelling
from semanticfl_jax.federated.versions import difference, received_by
from semanticfl_jax.randomness import RoundKeys, client_key, run_key
from semanticfl_jax.types import PyTree


class ClientState(NamedTuple):
    """What a client keeps where a transform keeps something.

    Attributes:
      rule: state of the client rule; () if it keeps nothing.
      transforms: a state for each transform, in their order.
    """

    rule: PyTree
    transforms: tuple[PyTree, ...]


class Sent(NamedTuple):
    """What a client sends.

    Attributes:
      update: `Model` of differences, as transformed; None for what does not travel. What the
        aggregator encodes it as, if it does.
      extra: what its rule sends besides.
    """

    update: Model
    extra: PyTree


class Done(NamedTuple):
    """What a client's round comes to.

    Attributes:
      sent: to the server.
      state: what it keeps.
      diverged: bool scalar, whether it trained and came to a number that is not finite.
      figures: what its rule measured, which it does not send: float32 scalars; of no use without
        a step.
    """

    sent: Sent
    state: PyTree
    diverged: jax.Array
    figures: Mapping[str, jax.Array] = {}


def init_state(algorithm: Algorithm, model: Model) -> PyTree:
    """Return one client's state before its first round; () if clients keep nothing.

    Args:
      algorithm: its client rule and its transforms.
      model: the initial model.
    """
    rule = () if algorithm.client is None else _rule_state(algorithm, model)
    nothing = travelling(algorithm, jax.tree.map(jnp.zeros_like, model))
    kept = tuple(
        as_arrays(transform.init(nothing), f"UpdateTransform.init of {transform.name}")
        for transform in algorithm.transforms
    )
    return ClientState(rule, kept) if jax.tree.leaves(kept) else rule


def _rule_state(algorithm: Algorithm, model: Model) -> PyTree:
    assert algorithm.client is not None
    return as_arrays(algorithm.client.init(model), f"ClientRule.init of {algorithm.name}")


def rule_state(state: PyTree) -> PyTree:
    """Return the client rule's part of a client's state, or of stacked ones."""
    return state.rule if isinstance(state, ClientState) else state


def finish_client(
    algorithm: Algorithm,
    received: Model,
    broadcast: Broadcast,
    keys: RoundKeys,
    sizes: jax.Array,
    client: jax.Array,
    weight: jax.Array,
    state: PyTree,
    result: LocalResult,
) -> Done:
    """Return what a client sends and keeps, and whether it diverged.

    A client without a step sends zeros and keeps its state.

    Args:
      algorithm: its client rule and its transforms.
      received: the server's model, or all that it keeps, of which `broadcast.slots` tells one.
      broadcast: what the server sent besides.
      keys: of the round.
      sizes: int32 [N], the training samples of all clients.
      client: int32 scalar, its id.
      weight: float32 scalar, its p_i.
      state: what it keeps.
      result: what its training gave.
    """
    rule, worked = algorithm.client, result.steps > 0
    kept = received
    received = received_by(kept, None if broadcast.slots is None else broadcast.slots[client])
    update = difference(result.model, received, kept, broadcast.newest)
    if broadcast.newest is not None:  # else zero without a step, as it is
        update = _or_zeros(worked, update)
    own, extra, made_otherwise, figures = rule_state(state), (), None, {}
    if rule is not None:
        finished = rule.finish(
            Trained(
                state=own,
                broadcast=broadcast.rule,
                received=received,
                model=result.model,
                steps=result.steps,
                weight=weight,
                loss=result.last_loss,
                rate=broadcast.rate,
                key=client_key(keys.client_rule, client),
                own=result.own,
                client=client,
                samples=samples_of(client, sizes),
            )
        )
        finished = require_finished(finished, own, received.params, algorithm.name)
        figures = finished.figures
        # Without a step it may have divided by zero.
        if finished.update is not None:
            update = update._replace(params=_or_zeros(worked, finished.update))
            made_otherwise = finished.update
        extra = _or_zeros(worked, finished.extra)
        own = where(worked, finished.state, own)
        if rule.start is not None or rule.begin is not None:
            update = _or_zeros(worked, update)
    update = travelling(algorithm, update)
    came_to = (result.model, result.loss_sum, extra, made_otherwise)
    refuse_extra(algorithm, extra)
    of_transforms = state.transforms if isinstance(state, ClientState) else None
    key = client_key(keys.transforms, client)
    update, after = transformed(algorithm, update, of_transforms, key)
    if of_transforms is not None:
        own = ClientState(own, where(worked, after, of_transforms))
    judged = (came_to, update) if algorithm.transforms else came_to
    attack, encode = algorithm.attack, algorithm.aggregator.encode
    if attack is not None and attack.forge is not None:
        forged = attack.forge(update, client_key(keys.attack, client))
        update = where(among(broadcast.attackers, client), forged, update)
        judged = (judged, update)
    # Before it is encoded, which may hide what is not finite.
    diverged = worked & ~all_finite(judged)
    if encode is not None and not colludes(algorithm):
        sender = sender_of(client, weight, keys, broadcast)
        update = encode(update, broadcast.aggregator, sender)
    if algorithm.transforms or encode is not None or attack is not None:
        update = _or_zeros(worked, update)  # else zero without a step, as it is
    return Done(Sent(update, extra), own, diverged, figures)


def leave_out(done: Done, before: PyTree) -> Done:
    """Return the same for a client that did not diverge; of one that did, nothing.

    What it sent becomes zeros, encoded or not, which have no weight, and it keeps its state
    `before` the round.
    """
    kept = ~done.diverged
    sent, state = _or_zeros(kept, done.sent), where(kept, done.state, before)
    return done._replace(sent=sent, state=state)


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether every number of a tree is finite, a bool scalar."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite))


def sender_of(
    client: jax.Array, weight: jax.Array, keys: RoundKeys, broadcast: Broadcast
) -> Sender:
    """Return what an aggregator's `encode` is told of a client."""
    own_key = client_key(keys.encoding, client)
    return Sender(client, weight, own_key, keys.encoding, broadcast.cohort)


def colludes(algorithm: Algorithm) -> bool:
    """Return whether attackers wait for the whole cohort's updates before they send theirs."""
    return algorithm.attack is not None and algorithm.attack.collude is not None


def transformed(
    algorithm: Algorithm, update: Model, states: tuple[PyTree, ...] | None, key: jax.Array
) -> tuple[Model, tuple[PyTree, ...]]:
    """Return an update after all transforms in turn, and their states.

    Args:
      algorithm: its transforms.
      update: of one client.
      states: of each transform; None: none keeps any.
      key: of the client, in the stream `TRANSFORMS`.

    Raises:
      SemanticFLError: if a transform changes the structure or the shapes of the update.
    """
    after = []
    for index, transform in enumerate(algorithm.transforms):
        state = () if states is None else states[index]
        applied = transform.apply(update, state, jax.random.fold_in(key, index))
        update, state = require_transformed(applied, update, state, transform.name)
        after.append(state)
    return update, tuple(after)


def _or_zeros(condition: jax.Array, tree: PyTree) -> PyTree:
    return where(condition, tree, jax.tree.map(jnp.zeros_like, tree))


def extra_shapes(algorithm: Algorithm, model: Model) -> PyTree:
    """Return the shapes of what a client sends besides its update; () if it sends nothing.

    Args:
      algorithm: its client rule.
      model: the model, or its shapes.
    """
    if algorithm.client is None:
        return ()

    def finish(model: Model) -> PyTree:
        own = _rule_state(algorithm, model)
        broadcast = algorithm.server.broadcast(algorithm.server.init(model))
        one, number = jnp.int32(1), jnp.float32(1)
        carried = ()
        if algorithm.client.carries is not None:
            carried = algorithm.client.carries(own, model, broadcast, optax.identity())
        if algorithm.client.begin is not None:
            begun = algorithm.client.begin(_beginning(own, model, broadcast))
            _, carried = require_begun(begun, model, algorithm.name)
        trained = Trained(
            own, broadcast, model, model, one, number, number, number, run_key(0), carried, one, one
        )
        finished = algorithm.client.finish(trained)
        return require_finished(finished, own, model.params, algorithm.name).extra

    return jax.eval_shape(finish, model)


def _beginning(own: PyTree, model: Model, broadcast: PyTree) -> Beginning:
    """Return what `ClientRule.begin` sees, for its shapes alone."""

    def value_and_grad(trained: Model, step: jax.Array) -> tuple[tuple[jax.Array, PyTree], PyTree]:
        del step
        trained = require_model(trained, "value_and_grad")
        return (jnp.float32(0), trained.batch_stats), trained.params

    one = jnp.int32(1)
    return Beginning(
        value_and_grad, own, model, broadcast, one, one, one, lambda step: jnp.float32(1)
    )


def refuse_extra(algorithm: Algorithm, extra: PyTree) -> None:
    """Raise `SemanticFLError` if clients send what transforms and aggregator do not see.

    Args:
      algorithm: its transforms and aggregator.
      extra: what clients send besides their update, or its shapes.
    """
    if not algorithm.transforms and algorithm.aggregator.encode is None:
        return
    if jax.tree.leaves(extra):
        names = [transform.name for transform in algorithm.transforms]
        if algorithm.aggregator.encode is not None:
            names.append(algorithm.aggregator.name)
        raise SemanticFLError(
            f"{algorithm.name} sends more than its update, which transforms would not see: it "
            f"cannot be combined with {', '.join(names)}"
        )
