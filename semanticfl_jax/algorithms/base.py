"""What a federated algorithm is: six separate choices, which therefore compose.

    LossTerm         what is added to the clients' loss        FedProx, MOON, FedRCL, guidance, ...
    ClientRule       what a client keeps, and sends besides    SCAFFOLD, MOON, FedNova, FedDyn, ...
    UpdateTransform  what a client does to its update          clip, top-k, QSGD, ...
    weights          how updates are weighted                  by size, uniform, FedDisco
    Aggregator       how updates become one                    mean, median, Krum, ...
    ServerRule       what the server does with that one        FedAvgM, FedAdam, SCAFFOLD, ...

Each has a file of its own: `loss_term`, `client_rule`, `transforms`, `weights`, `aggregators` and
`server_rule`. `federated` runs them all inside one compiled round:

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
from typing import Any

import jax

from semanticfl_jax.algorithms.aggregators import Aggregator, mean
from semanticfl_jax.algorithms.client_rule import (
    Beginning,
    ClientRule,
    Descent,
    Finished,
    Moment,
    StepInputs,
    Trained,
)
from semanticfl_jax.algorithms.loss_term import Contact, LossTerm, TermInputs
from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.algorithms.server_rule import Aggregate, ServerRule
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.algorithms.weights import by_size
from semanticfl_jax.attacks.base import Attack
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree

# All that an algorithm is written with.
__all__ = [
    "Aggregate",
    "Algorithm",
    "Beginning",
    "ClientRule",
    "Contact",
    "Descent",
    "Finished",
    "LossTerm",
    "Model",
    "Moment",
    "ServerRule",
    "StepInputs",
    "TermInputs",
    "Trained",
]


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
      fixed: the network's parameters that nobody trains, a tree of its parameters with None for
        those that are trained; every `Model` has None in their places. None: all are trained.

    Raises:
      SemanticFLError: for a piece of another kind, or terms whose names are not their own.
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
    fixed: PyTree = None

    def __post_init__(self):
        self._check_kinds()
        names = [term.name for term in self.terms]
        for name in names:
            if name == "model" or names.count(name) > 1:
                why = "the network's parameters have" if name == "model" else "another term has"
                raise SemanticFLError(
                    f"a term of {self.name} must have a name of its own, got {name!r}, which {why}"
                )

    def _check_kinds(self) -> None:
        """Raise `SemanticFLError` for a piece that is of another kind than it should be."""
        pieces: list[tuple[str, Any, type]] = [
            ("server", self.server, ServerRule),
            ("aggregator", self.aggregator, Aggregator),
        ]
        if self.client is not None:
            pieces.append(("client", self.client, ClientRule))
        for field, kind in (("terms", LossTerm), ("transforms", UpdateTransform)):
            several = getattr(self, field)
            if not isinstance(several, tuple | list):
                raise SemanticFLError(
                    f"{field} of {self.name} must be a tuple, (a {kind.__name__},), got a "
                    f"{type(several).__name__}"
                )
            pieces += [(f"each of the {field}", piece, kind) for piece in several]
        for what, piece, kind in pieces:
            if not isinstance(piece, kind):
                raise SemanticFLError(
                    f"{what} of {self.name} must be of the kind {kind.__name__}, got {piece!r:.100}"
                )

    @property
    def sent_once(self) -> dict[str, tuple[PyTree, PyTree, Mapping[str, Any]]]:
        """Return what clients receive at first contact: {term: (shared, per_sample, holders)}.

        The network's fixed parameters are `shared` of "model".
        """
        of_terms = {t.name: (t.shared, t.per_sample, dict(t.holders)) for t in self.terms}
        return of_terms if self.fixed is None else {**of_terms, "model": (self.fixed, (), {})}

    def with_term(self, term: LossTerm) -> Algorithm:
        """Return this algorithm with one more term in its local loss."""
        return dataclasses.replace(self, terms=(*self.terms, term))
