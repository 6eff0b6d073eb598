"""What a client keeps, does besides following its loss, and sends besides its update.

`ClientRule` comes last; before it, in the order of a client's round, what its functions are given
and return.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import optax

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.transforms import nothing
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


class Moment(NamedTuple):
    """Where a client is in its local training; int32 scalars.

    Attributes:
      index: steps done.
      steps_per_epoch: of this client.
      steps: that it will do in this round.
    """

    index: jax.Array
    steps_per_epoch: jax.Array
    steps: jax.Array


class Beginning(NamedTuple):
    """What `ClientRule.begin` sees of one client.

    Attributes:
      value_and_grad: (`Model`, step) -> ((loss, running statistics), gradient) of that model on the
        batch of that step, int32 scalar, of the first epoch, all terms included. Means over the
        batch: times `count(step) / samples`, and summed over the steps of the epoch, gradients
        are that of all its samples.
      state: the client's own.
      received: the server's model.
      broadcast: what the server sent besides.
      steps_per_epoch: int32 scalar; 0 in an empty place.
      client: int32 scalar, its id, from 0; negative in an empty place.
      samples: int32 scalar, its training samples; 0 in an empty place.
      count: step -> valid rows of its batch, float32 scalar: the last of an epoch may have fewer
        than others.
    """

    value_and_grad: Callable[[Model, jax.Array], tuple[tuple[jax.Array, PyTree], PyTree]]
    state: PyTree
    received: Model
    broadcast: PyTree
    steps_per_epoch: jax.Array
    client: jax.Array
    samples: jax.Array
    count: Callable[[jax.Array], jax.Array]


class StepInputs(NamedTuple):
    """What `ClientRule.descend` sees of one step on one client.

    Attributes:
      value_and_grad: `Model` -> ((loss, running statistics), gradient) of that model on this step's
        batch, all terms included; the gradient is a tree of parameters, before any correction.
      model: the client's, before the step.
      own: what it carries from step to step, see `ClientRule.carries`.
      state: its state before the round.
      received: the server's model.
      broadcast: what the server sent besides.
      count: float32 scalar, valid rows of the batch.
      rate: float32 scalar, the learning rate of this step.
      moment: where it is in its training.
      optimizer: of the clients, without the rate: a step is `rate` times its result, backwards.
      client: int32 scalar, its id, from 0.
    """

    value_and_grad: Callable[[Model], tuple[tuple[jax.Array, PyTree], PyTree]]
    model: Model
    own: PyTree
    state: PyTree
    received: Model
    broadcast: PyTree
    count: jax.Array
    rate: jax.Array
    moment: Moment
    optimizer: optax.GradientTransformation
    client: jax.Array

    def moved(self, params: PyTree, momentum: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        """Return other parameters, and their optimiser's state, after one step of the optimiser."""
        direction, momentum = self.optimizer.update(gradient, momentum, params)
        return jax.tree.map(lambda v, d: v - self.rate * d, params, direction), momentum


class Descent(NamedTuple):
    """What `ClientRule.descend` found.

    Attributes:
      loss: float32 scalar, reported.
      batch_stats: the running statistics after the step.
      gradient: tree of parameters, which correction, weight decay and momentum then follow.
      own: what it carries to the next step.
    """

    loss: jax.Array
    batch_stats: PyTree
    gradient: PyTree
    own: PyTree


class Trained(NamedTuple):
    """What a client has when its local training is over.

    Attributes:
      state: its state before the round.
      broadcast: what the server sent besides the model.
      received: the server's model.
      model: the model it ended with.
      steps: int32 scalar, its optimiser steps.
      weight: float32 scalar, its weight p_i in the average.
      loss: float32 scalar, mean training loss over its last epoch.
      rate: float32 scalar, the learning rate of this round.
      key: for what the rule draws; depends on the seed, the round and the client alone.
      own: what it carried from step to step, after the last, or what `begin` found; () without.
      client: int32 scalar, its id, from 0; negative in an empty place.
      samples: int32 scalar, its training samples; 0 in an empty place.
    """

    state: PyTree
    broadcast: PyTree
    received: Model
    model: Model
    steps: jax.Array
    weight: jax.Array
    loss: jax.Array
    rate: jax.Array
    key: jax.Array
    own: PyTree = ()
    client: jax.Array | int = -1
    samples: jax.Array | int = 0


class Finished(NamedTuple):
    """What a client keeps and sends.

    Attributes:
      state: its state after the round.
      update: takes the place of trained minus received parameters in the average; None: it doesn't.
      extra: sent besides, and summed over the cohort without weights. No transform sees it, so an
        algorithm whose clients send any cannot have transforms.
      figures: float scalars by name, what the client measures. A round's row has their means over
        the clients that trained, each of which counts once; null if none did. The simulator
        measures them: they are not sent, and are no traffic.
    """

    state: PyTree
    update: PyTree | None = None
    extra: PyTree = ()
    figures: Mapping[str, jax.Array] = {}


@dataclasses.dataclass(frozen=True)
class ClientRule:
    """What a client keeps between rounds, and does besides following its loss.

    Attributes:
      finish: `Trained` -> `Finished`. Clients without a step are left out: their state stays, and
        they send nothing.
      init: initial server model -> the state of one client before its first round.
      correction: (state, broadcast) -> tree added to every gradient of the round, before weight
        decay and momentum; None: nothing is.
      sends_extra: whether `extra` travels; not if the server can work it out of the updates.
      start: (state, received model, broadcast) -> the model that a client trains from; None: the
        received one. The update is the difference to the received model all the same.
      begin: `Beginning` -> (the model that a client trains from, what it carries), where that
        depends on the client's images; it takes the place of `start` and `carries`. None: it does
        not.
      uploads: whether what lies at a path of the `Model` travels, as in
        "params/model/Dense_0/kernel" or "batch_stats/BatchNorm_0/mean"; None: everything does. What
        does not travel is not aggregated, counts as traffic in neither direction, and stays at the
        server as it was.
      trains: (path, `Moment`) -> whether the parameters at the path move in that step; what does
        not move is neither decayed nor feeds its momentum. None: everything moves.
      steps: (client, steps) -> the local steps that a client does in a round, int32 scalars, of
        those that its epochs have, or that are left of them where it is a straggler: one at
        least, no more than these, whatever is returned. None: all of them.
      descend: `StepInputs` -> `Descent`: the gradient that a step follows, and what the client
        carries to the next; None: the gradient of its loss.
      carries: (state, received model, broadcast, optimizer) -> what a client carries from step to
        step, before the first; None: nothing.
      personal: (state, server's model, broadcast) -> the model that the client itself would use;
        None: it has none of its own.

    Raises:
      SemanticFLError: for what is no function, or for `begin` beside what it takes the place of.
    """

    finish: Callable[[Trained], Finished]
    init: Callable[[Model], PyTree] = nothing
    correction: Callable[[PyTree, PyTree], PyTree] | None = None
    sends_extra: bool = True
    start: Callable[[PyTree, Model, PyTree], Model] | None = None
    begin: Callable[[Beginning], tuple[Model, PyTree]] | None = None
    uploads: Callable[[str], bool] | None = None
    trains: Callable[[str, Moment], jax.Array | bool] | None = None
    steps: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    descend: Callable[[StepInputs], Descent] | None = None
    carries: Callable[[PyTree, Model, PyTree, optax.GradientTransformation], PyTree] | None = None
    personal: Callable[[PyTree, Model, PyTree], Model] | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            if name != "sends_extra" and value is not None and not callable(value):
                raise SemanticFLError(f"ClientRule.{name} must be a function, got {value!r:.100}")
        for name in ("start", "carries"):
            if self.begin is not None and getattr(self, name) is not None:
                raise SemanticFLError(
                    f"ClientRule.{name} must be left out beside begin, which returns both the "
                    "model that a client trains from and what it carries"
                )
