"""The students that come with the package: tiny-sd's, in a ResNet-10 of width 8 and of width 16.

How they were made is in their files, and in the model card of tiny-sd, whose folder they are in.
"""

from __future__ import annotations

from pathlib import Path

from semanticfl_jax.config import ModelConfig
from semanticfl_jax.diffusion.fingerprint import BUNDLED_CHECKPOINTS

CHECKPOINT = "tiny-sd"
NETWORK = "resnet10"
WIDTHS = (8, 16)
#: Of all of them: the images that they see, and the width of a target.
IMAGE_SHAPE, DIM = (32, 32, 3), 128


def bundled_student(model: ModelConfig, width: int = 0) -> Path:
    """Return the file of the student that suits clients; arguments as of `bundled_network`."""
    chosen = bundled_network(model, width)
    directory = BUNDLED_CHECKPOINTS[CHECKPOINT] / "students"
    return directory / f"{chosen.name}_width{chosen.width}.safetensors"


def bundled_network(model: ModelConfig, width: int = 0) -> ModelConfig:
    """Return the network of the student that suits clients.

    Args:
      model: of the clients.
      width: of the student; 0: that of the clients, or the nearest. Networks of another kind cannot
        start from a student, and get the wider one, which knows more.
    """
    own = model.width if model.name == NETWORK else max(WIDTHS)
    nearest = min(WIDTHS, key=lambda there: abs(there - (width or own)))
    return ModelConfig(name=NETWORK, width=nearest, norm="batch")
