"""Softmax regression on pixels, or on inputs of any shape: the smallest network there is."""

from __future__ import annotations

import flax.linen as nn
import jax

from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.models.outputs import Outputs


def linear(settings: object, context: ModelContext) -> Linear:
    """Return the network; it has one size and computes in float32."""
    del settings
    return Linear(context.num_classes)


class Linear(nn.Module):
    """One dense layer from all pixels, or other numbers, to the logits, zero at first.

    Attributes:
      num_classes: K.
    """

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, mask: jax.Array | None = None) -> Outputs:
        """Return logits [B, K] of inputs float32 [B, ...]; there are no features."""
        del train, mask
        pixels = images.reshape(len(images), -1)
        return Outputs(nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros)(pixels))
