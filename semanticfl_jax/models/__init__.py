"""Client networks: images in, logits and features out, chosen by name.

Every network is a Linen module called as `(images, *, train, mask=None) -> Outputs`, with images
float32 [B, H, W, 3] and mask bool [B] (False: the row pads the batch and influences nothing), and a
`feature_dim`. Its variables are "params" and, with batch normalisation, "batch_stats".

With `precision="bfloat16"` activations, convolutions and hidden dense layers are in bfloat16, and
parameters and their gradients, normalisation statistics, pixel means, the classifier and all
outputs stay in float32. bfloat16 has float32's range, so that losses need no scaling (Kalamkar et
al., arXiv 1905.12322).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from semanticfl_jax.models.client_conv import LOWERINGS
from semanticfl_jax.models.cnn import CNN
from semanticfl_jax.models.outputs import Outputs
from semanticfl_jax.models.resnet import ResNet10

__all__ = ["MODELS", "Outputs", "create_model"]

MODELS: dict[str, type[nn.Module]] = {"resnet10": ResNet10, "cnn": CNN}
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(
    name: str,
    num_classes: int,
    *,
    width: int = 64,
    norm: str = "batch",
    lowering: str = "auto",
    precision: str = "float32",
) -> nn.Module:
    """Makes a client network.

    Args:
      name: a key of `MODELS`.
      num_classes: K, the number of logits.
      width: channels of ResNet-10's first stage; the CNN has one form and ignores it.
      norm: "batch" or "group"; the CNN normalises nothing and ignores it.
      lowering: how convolutions are computed, see `client_conv`.
      precision: "float32" or "bfloat16", of the activations.

    Raises:
      ValueError: for a name, norm, lowering or precision that there is not, listing those that are.
    """
    if name not in MODELS:
        raise ValueError(f"model name must be one of {', '.join(MODELS)}, got {name!r}")
    if lowering not in LOWERINGS:
        raise ValueError(f"lowering must be one of {', '.join(LOWERINGS)}, got {lowering!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    dtype = PRECISIONS[precision]
    if name == "cnn":
        return CNN(num_classes, lowering=lowering, dtype=dtype)
    return ResNet10(num_classes, width=width, norm=norm, lowering=lowering, dtype=dtype)
