"""What a federated algorithm is: terms of the local loss, aggregation weights, a server step.

The three are separate choices, so they compose: any term can be added to any algorithm, and any
server optimiser can follow any weighting. `simulation` runs them all inside one compiled round:

    x         server parameters, sent to the cohort S
    y_i       argmin of  cross-entropy + sum of terms,  by local SGD from x
    delta     sum_i p_i (y_i - x),  p = weights(sizes, label counts of S)
    x'        x + server_optimizer(-delta)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from semanticfl_jax.models import Outputs

PyTree = Any


class TermInputs(NamedTuple):
    """What a loss term sees of one step on one client."""

    #: The term's own trainable parameters, as `LossTerm.init` made them.
    params: PyTree
    #: `LossTerm.shared`, as sent by the server.
    shared: PyTree
    #: The network's logits [B, K] and features [B, d], float32.
    outputs: Outputs
    #: int32 [B].
    labels: jax.Array
    #: bool [B]; False marks rows that pad the batch and must not count.
    mask: jax.Array
    #: The batch's rows of `LossTerm.per_sample`, arrays [B, ...].
    rows: PyTree = ()


def _no_parameters(key: jax.Array) -> PyTree:
    del key
    return {}


@dataclasses.dataclass(frozen=True)
class LossTerm:
    """One addition to the clients' cross-entropy.

    Attributes:
      name: key of the term's parameters and metrics.
      loss: `TermInputs` -> scalar float32, the mean over valid rows, already weighted.
      shared: arrays that every client receives at its first contact and keeps.
      per_sample: arrays [n, ...] with a row for each of the n training images; at its first contact
        a client receives the rows of its own images.
      init: key -> trainable parameters, aggregated like every other parameter.
    """

    name: str
    loss: Callable[[TermInputs], jax.Array]
    shared: PyTree = ()
    per_sample: PyTree = ()
    init: Callable[[jax.Array], PyTree] = _no_parameters


def by_size(sizes: jax.Array, label_counts: jax.Array) -> jax.Array:
    """Weights proportional to the clients' sample counts (McMahan et al., AISTATS 2017).

    Args:
      sizes: int32 [m], samples of each participant; 0 marks an empty place in the cohort.
      label_counts: int32 [m, K], unused here.

    Returns:
      float32 [m], summing to one.
    """
    del label_counts
    sizes = sizes.astype(jnp.float32)
    return sizes / jnp.sum(sizes)


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A federated algorithm; the defaults are FedAvg.

    Attributes:
      name: as the configuration calls it.
      terms: additions to the local cross-entropy.
      weights: (sizes [m], label_counts [m, K]) of the cohort -> float32 [m] that sum to one.
      server_optimizer: takes the negative average client update as its gradient.
    """

    name: str
    terms: tuple[LossTerm, ...] = ()
    weights: Callable[[jax.Array, jax.Array], jax.Array] = by_size
    server_optimizer: optax.GradientTransformation = dataclasses.field(
        default_factory=lambda: optax.sgd(1.0)
    )

    @property
    def sent_once(self) -> dict[str, tuple[PyTree, PyTree]]:
        """What clients receive at their first contact: {term: (shared, per_sample)}."""
        return {term.name: (term.shared, term.per_sample) for term in self.terms}

    def with_term(self, term: LossTerm) -> Algorithm:
        """This algorithm with one more term in its local loss."""
        return dataclasses.replace(self, terms=(*self.terms, term))
