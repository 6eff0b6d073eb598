"""The small CNN of pfl-research's CIFAR-10 benchmark (Granqvist et al., NeurIPS 2024).

Two 3x3 convolutions, a 2x2 max-pool and two dense layers, Glorot-uniform weights, zero biases;
1,626,442 parameters at 32x32x3 and 10 classes.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.models.channels import require_channels
from semanticfl_jax.models.client_conv import Conv
from semanticfl_jax.models.outputs import Outputs
from semanticfl_jax.models.precision import dtype_of


def cnn(settings: object, context: ModelContext) -> CNN:
    """Return the network; it has one size."""
    del settings
    require_channels(context, least=6)
    config = context.config
    dtype = dtype_of(config.precision)
    return CNN(context.num_classes, lowering=config.runtime.conv, dtype=dtype)


class CNN(nn.Module):
    """Convolutions of 32 and 64 channels without padding, then 128 dense units.

    Dropout needs the random stream "dropout" when `train` is true.

    Attributes:
      num_classes: K.
      lowering: of the convolutions, see `client_conv`.
      dtype: of activations, convolutions and the first dense layer, float32 or bfloat16.
    """

    num_classes: int
    lowering: str = "auto"
    dtype: Any = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Numbers in a feature."""
        return 128

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, mask: jax.Array | None = None) -> Outputs:
        """Run the network.

        Args:
          images: float32 [B, H, W, C], H and W at least 6.
          train: apply dropout.
          mask: bool [B], unused: no row influences another.

        Returns:
          Logits [B, K]; features [B, 128], these without the dropout that the classifier sees;
          levels: the two convolutions and the dense layer.
        """
        del mask
        init = nn.initializers.glorot_uniform()
        x, levels = images, []
        for number, channels in enumerate((32, 64), start=1):
            conv = Conv(
                channels,
                padding="VALID",
                use_bias=True,
                kernel_init=init,
                dtype=self.dtype,
                lowering=self.lowering,
                name=f"conv_{number}",
            )
            x = conv(x)
            levels.append(jnp.mean(x.astype(jnp.float32), axis=(1, 2)))
            # The maximum of what ReLU leaves is what it leaves of the maximum, a quarter of it.
            x = nn.relu(x if number == 1 else _max_pool(x))
        x = nn.Dropout(0.25, deterministic=not train)(x)
        x = x.reshape(x.shape[0], -1)
        dense = nn.Dense(self.feature_dim, kernel_init=init, dtype=self.dtype, name="dense")
        levels.append(dense(x).astype(jnp.float32))
        features = nn.relu(levels[-1])
        x = nn.Dropout(0.5, deterministic=not train)(features)
        classifier = nn.Dense(self.num_classes, kernel_init=init, name="classifier")
        return Outputs(classifier(x), features, tuple(levels))


def _max_pool(x: jax.Array) -> jax.Array:
    """Return the maxima of 2x2 squares: [B, H, W, C] to [B, H // 2, W // 2, C]."""
    height, width = (2 * (length // 2) for length in x.shape[1:3])
    return _max_of_squares(x[:, :height, :width])


@jax.custom_vjp
def _max_of_squares(x: jax.Array) -> jax.Array:
    """Return `_max_pool` for an even height and width; of equal values the first gets the gradient.

    As PyTorch does. Not `nn.max_pool`, whose gradient XLA lowers to a slow select-and-scatter
    on CPU, nor `jnp.max`, whose gradient is shared by equals, which takes more passes over x.
    """
    return _max_and_place(x)[0]


def _max_and_place(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the maxima of 2x2 squares, and where each was in its square, 0 to 3 row by row."""
    a, b, c, d = (x[:, row::2, column::2] for row in (0, 1) for column in (0, 1))
    upper, lower = jnp.maximum(a, b), jnp.maximum(c, d)
    place = jnp.where(upper >= lower, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3))
    return jnp.maximum(upper, lower), place


def _spread_gradient(place: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    batch, height, width, channels = gradient.shape
    is_here = place[:, :, None, :, None] == jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    spread = jnp.where(is_here, gradient[:, :, None, :, None], 0)
    return (spread.reshape(batch, 2 * height, 2 * width, channels),)


_max_of_squares.defvjp(_max_and_place, _spread_gradient)
