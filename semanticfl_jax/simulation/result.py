"""What a run results in."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax.simulation.export import TrainedModel
from semanticfl_jax.types import PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A trained model, and the metrics of its run.

    Attributes:
      model: the network with its weights.
      history: a flat row a round; `pandas.DataFrame(result.history)` works.
      summary: what summary.json holds: the task's figures, times, traffic, versions.
      workdir: the run's directory; None if nothing was written.
    """

    model: TrainedModel
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    workdir: Path | None = None

    @property
    def params(self) -> PyTree:
        """The network's parameters, float32."""
        return self.model.params

    @property
    def batch_stats(self) -> PyTree:
        """The network's running statistics; {} without batch normalisation."""
        return self.model.batch_stats

    @property
    def num_params(self) -> int:
        """Number of the network's parameters."""
        import jax

        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the task's predictions for inputs: int32 [n], if classes.

        Images are uint8 [n, H, W, 3]; others are as `ImageDataset.from_arrays` takes them.
        """
        return self.model.predict(images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return what the network returns for inputs, as `predict`: float32 [n, K]."""
        return self.model.logits(images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return what the classifier reads of inputs, as `predict`: float32 [n, d]."""
        return self.model.features(images)

    def export(self, path: str | os.PathLike) -> None:
        """Write weights, normalisation, class names and architecture to a .safetensors file."""
        self.model.export(path)
