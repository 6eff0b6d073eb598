"""What a term adds to the clients' loss, and what it sees of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models import Outputs
from semanticfl_jax.types import PyTree


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
    #: The batch as the network sees it, augmented and normalised: float32 [B, H, W, 3]; inputs that
    #: are no images, as they are: float32 [B, ...].
    images: jax.Array | None = None
    #: The client's training samples of each class: int32 [K].
    label_counts: jax.Array | None = None
    #: What the server sent besides the model, see `ServerRule.broadcast`.
    broadcast: PyTree = ()


@dataclasses.dataclass(frozen=True)
class Contact:
    """What a client computes of each of its own images once, at its first contact, and keeps.

    Attributes:
      rows: (`LossTerm.shared`, images uint8 [B, H, W, 3]) -> {name: [B, ...]}; an image's row must
        not depend on the other images. Inputs that are no images are float32 or int32 [B, ...].
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
      name: key of the term's parameters. A round's row has the term's mean value as
        `train_loss_NAME`, unless the client rule has `descend`.
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
        if isinstance(self.needs, str):
            raise SemanticFLError(
                f"needs of the term {self.name} must be a tuple, ({self.needs!r},), got a str"
            )
        unknown = set(self.needs) - (set(Outputs._fields) - {"logits"})
        if unknown:
            raise SemanticFLError(
                f"the term {self.name} needs {unknown}, which no network has a name for"
            )
