"""Settings of the built-in loggers: trackers that a run's figures are sent to."""

from __future__ import annotations

import dataclasses
from typing import Literal

from semanticfl_jax.config.fields import Config
from semanticfl_jax.config.values import PathText
from semanticfl_jax.registry import LOGGERS


@dataclasses.dataclass(frozen=True)
class TensorBoardConfig(Config):
    """Event files, which `tensorboard --logdir=DIR` shows."""

    #: Directory of the event files; none: "tensorboard" in the run's.
    directory: PathText | None = None


@dataclasses.dataclass(frozen=True)
class WandbConfig(Config):
    """A run of Weights & Biases."""

    #: Name of the project.
    project: str = "semanticfl_jax"
    #: User or team; none: as the login has it.
    entity: str | None = None
    #: Offline keeps the run in the run's directory, from where `wandb sync` sends it.
    mode: Literal["online", "offline"] = "online"


@dataclasses.dataclass(frozen=True)
class MlflowConfig(Config):
    """A run of an MLflow experiment."""

    #: Name of the experiment.
    experiment: str = "semanticfl_jax"
    #: Server; none: $MLFLOW_TRACKING_URI, or MLflow's default, a database beside the run, which
    #: needs the whole package mlflow.
    tracking_uri: str | None = None


_MODULE = "semanticfl_jax.simulation.loggers"

LOGGERS.register(
    "tensorboard",
    f"{_MODULE}.tensorboard:build",
    settings=TensorBoardConfig,
    about="TensorBoard, by tensorboardX: pip install 'semanticfl-jax[tensorboard]'",
)
LOGGERS.register(
    "wandb",
    f"{_MODULE}.wandb:build",
    settings=WandbConfig,
    about="Weights & Biases: pip install 'semanticfl-jax[wandb]'",
)
LOGGERS.register(
    "mlflow",
    f"{_MODULE}.mlflow:build",
    settings=MlflowConfig,
    about="MLflow: pip install 'semanticfl-jax[mlflow]'",
)
