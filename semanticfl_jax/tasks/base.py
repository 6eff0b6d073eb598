"""What a task is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from semanticfl_jax.data.sources.labels import positions
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree


class Loss(Protocol):
    """The loss of every sample of a batch."""

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return float32 [B], for the labels of B images.

        Logits are float32 [B, outputs]; of tokens [B, ..., outputs], with the labels' positions.
        """


class CountTotals(Protocol):
    """Sums over a batch, of which sums over a test set are made."""

    def __call__(self, logits: jax.Array, labels: jax.Array, mask: jax.Array) -> PyTree:
        """Return a tree of arrays that are added up over batches and devices.

        Args:
          logits: float32 [B, outputs]; of tokens [B, ..., outputs].
          labels: of B images.
          mask: bool [B]; rows where it is False pad the batch and must not count.
        """


def _as_many(num_labels: int) -> int:
    return num_labels


@dataclasses.dataclass(frozen=True)
class Task:
    """What clients learn of their images, and how well they do.

    Labels are int32 [B] where the registry says "class", uint8 [B, K] of 0 and 1 where it says
    "binary", float32 [B, K] where it says "numbers", and int32 [B, ...] where it says "tokens", -1
    where a position does not count. What a network returns is called logits, whatever the task.

    Attributes:
      name: as the configuration calls it.
      loss: of every sample.
      totals: sums over a batch of test images.
      figures: sums over all test images -> figures by name, scalars or small arrays. A name that
        begins with "test_" is one of the test set; `headline` and "test_loss" must be there.
      predict: logits float32 [n, outputs], of tokens [n, ..., outputs], on the host -> predictions,
        an array of n rows, each of its own logits: it is called batch by batch.
      headline: the figure that says how well a model does; it begins with "test_".
      higher_is_better: whether more of it is better.
      outputs: K -> the number of logits, for instance 2 K for a mean and a variance each; of tokens
        that of each position.

    Raises:
      SemanticFLError: for a headline that does not begin with "test_".
    """

    name: str
    loss: Loss
    totals: CountTotals
    figures: Callable[[Any], dict[str, jax.Array]]
    predict: Callable[[np.ndarray], np.ndarray]
    headline: str
    higher_is_better: bool = True
    outputs: Callable[[int], int] = _as_many

    def __post_init__(self):
        if not self.headline.startswith("test_"):
            raise SemanticFLError(
                f"the headline of the task {self.name} must begin with test_, got {self.headline!r}"
            )

    def losses(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the loss of every sample, float32 [B].

        Raises:
          SemanticFLError: if it has another shape.
        """
        losses = self.loss(logits, labels)
        if losses.shape != logits.shape[:1]:
            raise SemanticFLError(
                f"the loss of the task {self.name} must be one a sample, [{len(logits)}] for a "
                f"batch of {len(logits)}, got {list(losses.shape)}"
            )
        return losses

    def checked_figures(self, totals: PyTree) -> dict[str, jax.Array]:
        """Return the figures.

        Raises:
          SemanticFLError: if the headline or the loss is missing.
        """
        figures = self.figures(totals)
        for name in (self.headline, "test_loss"):
            if name not in figures:
                raise SemanticFLError(
                    f"the figures of the task {self.name} must have {name}, got "
                    f"{', '.join(figures)}"
                )
        return figures

    def logits_shape(self, num_labels: int, labels: np.ndarray) -> tuple[int, ...]:
        """Return the shape of an image's logits: of tokens the labels' positions, then `outputs`.

        Args:
          num_labels: K, as `outputs` takes it.
          labels: of any images of the data set.
        """
        return (*positions(labels), self.outputs(num_labels))

    def figure_shapes(self, num_labels: int, labels: np.ndarray) -> dict[str, jax.ShapeDtypeStruct]:
        """Return the shapes of the figures by name, which are known before any test.

        Args:
          num_labels: K, as `outputs` takes it.
          labels: of any images of the data set.
        """
        logits = jax.ShapeDtypeStruct((1, *self.logits_shape(num_labels, labels)), np.float32)
        one = jax.ShapeDtypeStruct((1, *labels.shape[1:]), labels.dtype)
        mask = jax.ShapeDtypeStruct((1,), np.bool_)
        return jax.eval_shape(self.figures, jax.eval_shape(self.totals, logits, one, mask))
