"""Tasks: what clients learn of their images. One file each; the registry knows them by name.

A task is a loss, figures of a test set and predictions, all of a network's logits; what the data
must hold stands in the registry, where the configuration can ask for it (`TaskTraits`).
"""

from __future__ import annotations

import numpy as np

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import TaskContext
from semanticfl_jax.registry import TASKS
from semanticfl_jax.tasks.base import Task
from semanticfl_jax.tasks.classification import CLASSIFICATION

__all__ = ["CLASSIFICATION", "Task", "make_task"]


def make_task(
    config: ExperimentConfig, num_labels: int, test_labels: np.ndarray | None = None
) -> Task:
    """Build the task that a configuration names.

    Args:
      config: `task` and `task_settings` decide.
      num_labels: K, the classes of an image or of a position; for other tasks, the labels or
        numbers of an image.
      test_labels: of the test set, [m], [m, K] or, with positions, [m, ...]; None where only
        predictions are made.

    Raises:
      SemanticFLError: if its builder returns no `Task`.
    """
    context = TaskContext(config, num_labels, test_labels)
    return TASKS[config.task].build(config.task_settings, context, Task)
