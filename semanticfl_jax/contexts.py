"""What a builder of the registry is told besides its own settings: what is known by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from semanticfl_jax.config import ExperimentConfig, PartitionConfig
    from semanticfl_jax.models.outputs import Outputs
    from semanticfl_jax.semantics.anchors import Anchors
    from semanticfl_jax.semantics.student import Student


@dataclasses.dataclass(frozen=True)
class DatasetContext:
    """For a data set, whose builder returns an `ImageDataset`.

    Attributes:
      config: of the run; `data_dir` is where its files are.
    """

    config: ExperimentConfig


@dataclasses.dataclass(frozen=True)
class LoggerContext:
    """For a logger, whose builder returns a `Callback`.

    Attributes:
      config: of the run.
      workdir: the run's directory; None if nothing is written.
    """

    config: ExperimentConfig
    workdir: Path | None


@dataclasses.dataclass(frozen=True)
class PartitionContext:
    """For a partition scheme, whose builder returns one array of sample indices a client.

    Attributes:
      config: the partition's fields.
      groups: int [n], each sample's label; with `partition.column` set, the number of its value;
        zeros where images have no class.
      num_clients: N.
      rng: the only source of randomness, seeded by the run's seed.
    """

    config: PartitionConfig
    groups: np.ndarray
    num_clients: int
    rng: np.random.Generator


@dataclasses.dataclass(frozen=True)
class TaskContext:
    """For a task, whose builder returns a `Task`.

    Attributes:
      config: of the run.
      num_labels: K, the classes of an image or of a position; for other tasks, the labels or
        numbers of an image.
      test_labels: of the test set, [m], [m, K] or, with positions, [m, ...]; None where only
        predictions are made.
    """

    config: ExperimentConfig
    num_labels: int
    test_labels: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class ModelContext:
    """For a model, whose builder returns a Flax module.

    Attributes:
      config: of the run.
      num_classes: K, the number of logits, whatever the task.
      image_shape: H, W, 3; of inputs that are no images, their own shape.
    """

    config: ExperimentConfig
    num_classes: int
    image_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class AlgorithmContext:
    """For an algorithm, an aggregator or an update transform.

    Attributes:
      config: of the run.
      num_classes: K.
      outputs: shapes of what the model returns for a batch of one image; None where no model is.
      anchors: of a run that uses them; None otherwise.
      holders: which clients hold which kind of guidance, name -> bool [N]; a kind that is
        missing here is held by all.
      student: of a run that has one; None otherwise.
      variables: shapes of the model's "params" and, with batch normalisation, "batch_stats"; None
        where no model is.
    """

    config: ExperimentConfig
    num_classes: int = 0
    outputs: Outputs | None = None
    anchors: Anchors | None = None
    holders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    student: Student | None = None
    variables: Mapping[str, Any] | None = None

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return self.config.num_clients

    @property
    def feature_dim(self) -> int:
        """Width of the model's features; 0 where it returns none."""
        features = None if self.outputs is None else self.outputs.features
        return 0 if features is None else features.shape[-1]
