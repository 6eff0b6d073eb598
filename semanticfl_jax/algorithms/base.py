"""What a federated algorithm is: six separate choices, which therefore compose.

    LossTerm         what is added to the clients' loss        FedProx, MOON, FedRCL, guidance, ...
    ClientRule       what a client keeps, and sends besides    SCAFFOLD, MOON, FedNova, FedDyn, ...
    UpdateTransform  what a client does to its update          clip (transforms.py)
    weights          how updates are weighted                  by size, uniform, FedDisco
    Aggregator       how updates become one                    mean, median (aggregators.py)
    ServerRule       what the server does with that one        FedAvgM, FedAdam, SCAFFOLD, ...

`federated` runs them all inside one compiled round:

    x, b       server model and broadcast b, sent to the cohort S
    y_i        argmin of  cross-entropy + sum of terms,  by local SGD from start(s_i, x, b), which
               is x unless the rule says otherwise, along gradient + correction(s_i, b), or along
               what descend says; another model of the client may be trained beside it
    u_i, e_i   finish: the client's update, y_i - x unless it says otherwise, and what else it sends
    v_i        the part of u_i that is uploaded, after all transforms in turn
    v          aggregator( v_i, p_i ),   sum_i p_i v_i by default,   p = weights(sizes, counts of S)
    x', b'     server.update( v, sum_i e_i )

What an algorithm does not use does not exist in its program: FedAvg has no client state, no
correction and no broadcast. What draws at random is given a key of its own (`randomness`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from semanticfl_jax.algorithms.aggregators import Aggregator, mean
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.attacks.base import Attack
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Outputs
from semanticfl_jax.types import PyTree


class Model(NamedTuple):
    """A whole model.

    Attributes:
      params: trained parameters, {"model": ..., term name: ...}, float32.
      batch_stats: running statistics of batch normalisation, float32; never trained, and no part
        of any server rule: their differences are aggregated as those of parameters, and added.
    """

    params: PyTree
    batch_stats: PyTree


class TermInputs(NamedTuple):
    """What a loss term sees of one step on one client."""

    #: The term's own trainable parameters, as `LossTerm.init` made them.
    params: PyTree
    #: `LossTerm.shared`, as sent by the server.
    shared: PyTree
    #: What the network returned: logits [B, K], features [B, d] and more, float32.
    outputs: Outputs
    #: int32 [B]; of a task without classes, uint8 or float32 [B, K].
    labels: jax.Array
    #: bool [B]; False marks rows that pad the batch and must not count.
    mask: jax.Array
    #: The batch's rows of `LossTerm.per_sample` and of `LossTerm.contact`, arrays [B, ...].
    rows: PyTree = ()
    #: All parameters being trained, at this step: the tree of `received.params`.
    trained: PyTree = ()
    #: The server's model, as it was received.
    received: Model = Model((), ())
    #: The client's own state, as `ClientRule.finish` left it.
    state: PyTree = ()
    #: For each name in `LossTerm.holders`: whether this client has that entry, a bool scalar.
    holds: Mapping[str, jax.Array] = {}
    #: `Model` -> `Outputs`: another model on the same images, in evaluation mode.
    apply: Callable[[Model], Outputs] | None = None
    #: The batch as the network sees it, augmented and normalised: float32 [B, H, W, 3].
    images: jax.Array | None = None
    #: The client's training samples of each class: int32 [K].
    label_counts: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Contact:
    """What a client computes of each of its own images once, at its first contact, and keeps.

    Attributes:
      rows: (`LossTerm.shared`, images uint8 [B, H, W, 3]) -> {name: [B, ...]}; an image's row must
        not depend on the other images.
      order: for a control: number of all clients' images, n -> int [n], whose row each image is
        given instead of its own; None: its own.
    """

    rows: Callable[[PyTree, jax.Array], Mapping[str, jax.Array]]
    order: Callable[[int], Any] | None = None


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One addition to the clients' loss, which is the task's: cross-entropy, for instance.

    FedProx, as an example:

        def loss(inputs):
            difference = jax.tree.map(jnp.subtract, inputs.trained, inputs.received.params)
            return mu / 2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(difference))

        term = sfl.LossTerm("proximal", loss)

    Attributes:
      name: key of the term's parameters and metrics.
      loss: `TermInputs` -> scalar float32, the mean over valid rows, already weighted.
      shared: arrays that every client receives at its first contact and keeps.
      per_sample: arrays [n, ...] with a row for each of the n training images; at its first contact
        a client receives the rows of its own images.
      holders: of mappings `shared` and `per_sample`, which clients receive an entry: name -> bool
        [num_clients]; all receive an entry without a name here. The arrays are there for all, so
        `loss` must leave out what its client does not hold.
      init: key -> trainable parameters, aggregated like every other parameter; None: it has none.
      needs: which fields of `Outputs` besides the logits it reads: "features", "levels".
      contact: further rows of each image, which clients compute themselves of their own images;
        they travel in neither direction. None: there are none.
    """

    name: str
    loss: Callable[[TermInputs], jax.Array]
    shared: PyTree = ()
    per_sample: PyTree = ()
    holders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    init: Callable[[jax.Array], PyTree] | None = None
    needs: tuple[str, ...] = ()
    contact: Contact | None = None

    def __post_init__(self):
        unknown = set(self.needs) - (set(Outputs._fields) - {"logits"})
        if unknown:
            raise SemanticFLError(
                f"the term {self.name} needs {unknown}, which no network has a name for"
            )


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
        batch of that step, int32 scalar, of the first epoch, all terms included.
      state: the client's own.
      received: the server's model.
      broadcast: what the server sent besides.
      steps_per_epoch: int32 scalar; 0 in an empty place.
    """

    value_and_grad: Callable[[Model, jax.Array], tuple[tuple[jax.Array, PyTree], PyTree]]
    state: PyTree
    received: Model
    broadcast: PyTree
    steps_per_epoch: jax.Array


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


class Finished(NamedTuple):
    """What a client keeps and sends.

    Attributes:
      state: its state after the round.
      update: takes the place of trained minus received parameters in the average; None: it doesn't.
      extra: sent besides, and summed over the cohort without weights. No transform sees it, so an
        algorithm whose clients send any cannot have transforms.
    """

    state: PyTree
    update: PyTree | None = None
    extra: PyTree = ()


def _nothing(*_: Any) -> PyTree:
    return ()


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
      descend: `StepInputs` -> `Descent`: the gradient that a step follows, and what the client
        carries to the next; None: the gradient of its loss.
      carries: (state, received model, broadcast, optimizer) -> what a client carries from step to
        step, before the first; None: nothing.
      personal: (state, server's model, broadcast) -> the model that the client itself would use;
        None: it has none of its own.
    """

    finish: Callable[[Trained], Finished]
    init: Callable[[Model], PyTree] = _nothing
    correction: Callable[[PyTree, PyTree], PyTree] | None = None
    sends_extra: bool = True
    start: Callable[[PyTree, Model, PyTree], Model] | None = None
    begin: Callable[[Beginning], tuple[Model, PyTree]] | None = None
    uploads: Callable[[str], bool] | None = None
    trains: Callable[[str, Moment], jax.Array | bool] | None = None
    descend: Callable[[StepInputs], Descent] | None = None
    carries: Callable[[PyTree, Model, PyTree, optax.GradientTransformation], PyTree] | None = None
    personal: Callable[[PyTree, Model, PyTree], Model] | None = None


class Aggregate(NamedTuple):
    """What the server has when all clients of a round are done.

    Attributes:
      update: what the aggregator made of the clients' updates, a tree of parameters; zero where
        nothing is uploaded.
      extra: sum of the e_i.
      weight: the sum of the p_i that `extra` may be made of: 1, a number; a float32 scalar where
        clients that diverged are left out.
      participants: float32 scalar, clients that trained.
      clients: int32 [places], client ids; -1 in empty places.
      before: the cohort's client states before the round, stacked: [places, ...].
      after: the same after it.
      rate: float32 scalar, the server's learning rate in this round.
      key: for what the server draws; depends on the seed and the round alone.
    """

    update: PyTree
    extra: PyTree
    weight: jax.Array | float
    participants: jax.Array
    clients: jax.Array
    before: PyTree
    after: PyTree
    rate: jax.Array
    key: jax.Array


def _as_it_is(state: PyTree, model: Model) -> Model:
    del state
    return model


@dataclasses.dataclass(frozen=True)
class ServerRule:
    """What the server does to its parameters at the end of a round.

    A step along the average update, as an example:

        def update(state, params, aggregate):
            return jax.tree.map(lambda x, d: x + rate * d, params, aggregate.update), state

        rule = sfl.ServerRule(update)

    Attributes:
      update: (state, parameters, `Aggregate`) -> (parameters, state).
      init: initial model -> state before the first round.
      broadcast: state -> what clients receive in every round besides the model.
      evaluated: (state, model) -> the model to be tested, if it is not the one that is sent.
      batch_stats: (state after `update`, aggregated running statistics) -> running statistics, for
        a rule whose parameters are not the old ones plus an update. FedCDA's are the average of
        models that it selects, and its statistics are those models'. None, as nearly everywhere:
        the aggregated statistics.
    """

    update: Callable[[PyTree, PyTree, Aggregate], tuple[PyTree, PyTree]]
    init: Callable[[Model], PyTree] = _nothing
    broadcast: Callable[[PyTree], PyTree] = _nothing
    evaluated: Callable[[PyTree, Model], Model] = _as_it_is
    batch_stats: Callable[[PyTree, PyTree], PyTree] | None = None


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A federated algorithm.

    Attributes:
      name: as the configuration calls it.
      server: its step at the end of a round.
      weights: (sizes [m], label_counts [m, K]) of the cohort -> float32 [m] that sum to one.
      terms: additions to the local cross-entropy.
      client: None: clients keep nothing and send their model's difference.
      sends_label_counts: whether `weights` needs the label counts, sent at the first contact.
      transforms: of every client's update, in turn, before it is sent.
      aggregator: makes one update of the clients'.
      logits: `TermInputs` -> float32 [B, K], what the task's loss sees in training in place of the
        network's logits; None: the network's logits.
      attack: what the clients that attack do; None: none does.
    """

    name: str
    server: ServerRule
    weights: Callable[[jax.Array, jax.Array], jax.Array] = by_size
    terms: tuple[LossTerm, ...] = ()
    client: ClientRule | None = None
    sends_label_counts: bool = False
    transforms: tuple[UpdateTransform, ...] = ()
    aggregator: Aggregator = dataclasses.field(default_factory=mean)
    logits: Callable[[TermInputs], jax.Array] | None = None
    attack: Attack | None = None

    @property
    def sent_once(self) -> dict[str, tuple[PyTree, PyTree, Mapping[str, Any]]]:
        """Return what clients receive at first contact: {term: (shared, per_sample, holders)}."""
        return {t.name: (t.shared, t.per_sample, dict(t.holders)) for t in self.terms}

    def with_term(self, term: LossTerm) -> Algorithm:
        """Return this algorithm with one more term in its local loss."""
        return dataclasses.replace(self, terms=(*self.terms, term))
