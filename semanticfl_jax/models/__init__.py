"""Client networks: images in, logits and features out.

A network is a Flax module called as `(images, *, train, mask=None)`, with images float32
[B, H, W, 3], or inputs as they are, float32 [B, ...], and mask bool [B] (False: the row pads the
batch and influences nothing). It returns `Outputs`, or logits alone where no algorithm needs more.
Its variables are "params" and, with batch normalisation, "batch_stats".
"""

import flax.linen as nn

from semanticfl_jax.config import ExperimentConfig
from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.models.network import Network
from semanticfl_jax.models.outputs import Outputs
from semanticfl_jax.registry import MODELS

__all__ = ["Network", "Outputs", "make_model"]


def make_model(
    config: ExperimentConfig, num_classes: int, image_shape: tuple[int, ...] = (32, 32, 3)
) -> Network:
    """Make the network that a configuration names.

    Args:
      config: `model`, `precision` and `runtime.conv` decide.
      num_classes: K, the number of logits.
      image_shape: H, W, 3, or the shape of an input that is no image.

    Raises:
      ConfigError: for a network that needs images, and inputs of another shape.
    """
    context = ModelContext(config, num_classes, tuple(image_shape))
    return Network(MODELS[config.model.name].build(config.model.settings, context, nn.Module))
