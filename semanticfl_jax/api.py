"""The Python interface: what `import semanticfl_jax` gives, in one place.

import semanticfl_jax as sfl

result = sfl.run(sfl.ExperimentConfig(dataset="digits"), workdir="runs/a")
"""

from semanticfl_jax.algorithms.base import (
    Aggregate,
    Algorithm,
    ClientRule,
    Contact,
    Finished,
    LossTerm,
    Model,
    ServerRule,
    TermInputs,
    Trained,
)
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.models import Outputs
from semanticfl_jax.simulation.callbacks import Callback, Step
from semanticfl_jax.simulation.experiment import Simulation, run
from semanticfl_jax.simulation.export import TrainedModel, load_model
from semanticfl_jax.simulation.interrupt import Stopped
from semanticfl_jax.simulation.result import Result
from semanticfl_jax.tasks import Task

__all__ = [
    "Aggregate",
    "Algorithm",
    "Callback",
    "ClientRule",
    "Contact",
    "Finished",
    "ImageDataset",
    "LossTerm",
    "Model",
    "Outputs",
    "Partition",
    "Result",
    "ServerRule",
    "Simulation",
    "Step",
    "Stopped",
    "Task",
    "TermInputs",
    "Trained",
    "TrainedModel",
    "load_model",
    "run",
]
