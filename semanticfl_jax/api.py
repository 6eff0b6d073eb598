"""The part of the Python interface that needs JAX; `semanticfl_jax` imports it when it is used.

import semanticfl_jax as sfl

config = sfl.ExperimentConfig(
    dataset="digits", augmentation=(), rounds=5, model=sfl.ModelConfig(width=8)
)
result = sfl.run(config, workdir="runs/a")
"""

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    Beginning,
    ClientRule,
    Contact,
    Descent,
    Finished,
    LossTerm,
    Model,
    Moment,
    ServerRule,
    StepInputs,
    TermInputs,
    Trained,
)
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.models import Outputs
from semanticfl_jax.models.client_conv import Conv
from semanticfl_jax.simulation.callbacks import Callback, Step
from semanticfl_jax.simulation.compare import ComparisonResult, compare
from semanticfl_jax.simulation.experiment import Simulation, run
from semanticfl_jax.simulation.export import TrainedModel, load_model
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.tasks import Task

__all__ = [
    "Aggregate",
    "Algorithm",
    "Beginning",
    "Callback",
    "ClientRule",
    "ComparisonResult",
    "Contact",
    "Conv",
    "Descent",
    "Finished",
    "ImageDataset",
    "LossTerm",
    "Model",
    "Moment",
    "Outputs",
    "Partition",
    "Result",
    "ServerRule",
    "Simulation",
    "Step",
    "StepInputs",
    "Task",
    "TermInputs",
    "Trained",
    "TrainedModel",
    "compare",
    "load_model",
    "run",
]
