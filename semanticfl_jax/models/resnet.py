"""ResNet-10 for small images: the clients' network of the paper.

He et al., CVPR 2016, with one BasicBlock a stage, a 3x3 stem and no max-pooling, as the FedDifRC
family uses it. Feature: the global average after the last ReLU, 512 numbers at width 64.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semanticfl_jax.contexts import ModelContext
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.models.channels import require_channels
from semanticfl_jax.models.client_conv import Conv
from semanticfl_jax.models.normalization import NORMS, BatchNorm, GroupNorm
from semanticfl_jax.models.outputs import Outputs
from semanticfl_jax.models.precision import dtype_of

STRIDES = (1, 2, 2, 2)

# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for convolutions and linear layers (Kaiming
# uniform with a = sqrt(5)). The paper names no initialisation: our choice, the default of the
# framework its results were obtained with.
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def resnet10(settings: object, context: ModelContext) -> ResNet10:
    """Return the network of `model.width` and `model.norm`."""
    del settings
    require_channels(context)
    config = context.config
    return ResNet10(
        context.num_classes,
        width=config.model.width,
        norm=config.model.norm,
        lowering=config.runtime.conv,
        dtype=dtype_of(config.precision),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution if the shape changes.

    Attributes:
      features: output channels.
      stride: of the first convolution and the projection.
      conv: makes a convolution layer from (features, size, strides, padding, name).
      norm: makes a normalisation layer from (name), called with x alone.
    """

    features: int
    stride: int
    conv: functools.partial
    norm: functools.partial

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, mask: jax.Array | None) -> jax.Array:
        """Map [B, H, W, C] to [B, H / stride, W / stride, features], before the last ReLU."""
        conv = functools.partial(self.conv, self.features)
        strides = (self.stride, self.stride)
        y = conv((3, 3), strides, 1, name="conv_1")(x)
        y = nn.relu(self.norm(name="norm_1")(y, train=train, mask=mask))
        y = conv((3, 3), (1, 1), 1, name="conv_2")(y)
        y = self.norm(name="norm_2")(y, train=train, mask=mask)
        if x.shape != y.shape:
            x = conv((1, 1), strides, 0, name="shortcut")(x)
            x = self.norm(name="shortcut_norm")(x, train=train, mask=mask)
        return x + y


class ResNet10(nn.Module):
    """ResNet-10 with BasicBlocks of width, 2 width, 4 width and 8 width channels.

    Attributes:
      num_classes: K.
      width: channels of the stem and the first stage; 64 in the paper.
      norm: "batch" or "group".
      groups: groups of channels when `norm` is "group".
      lowering: of the convolutions, see `client_conv`.
      dtype: of activations and convolutions, float32 or bfloat16.
    """

    num_classes: int
    width: int = 64
    norm: str = "batch"
    groups: int = 2
    lowering: str = "auto"
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.norm not in NORMS:
            raise SemanticFLError(f"norm must be one of {', '.join(NORMS)}, got {self.norm!r}")
        if self.norm == "group" and self.width % self.groups:
            raise SemanticFLError(
                f'width must be a multiple of {self.groups} when norm is "group", got {self.width}'
            )
        super().__post_init__()

    @property
    def feature_dim(self) -> int:
        """Numbers in a feature."""
        return 8 * self.width

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool, mask: jax.Array | None = None) -> Outputs:
        """Run the network.

        Args:
          images: float32 [B, H, W, C], H and W multiples of 8.
          train: normalise with the batch's statistics ("batch_stats" must then be mutable).
          mask: bool [B], False for rows that pad the batch; None when all are valid.

        Returns:
          Logits [B, K], features [B, feature_dim], and levels: the stem and the four stages.
        """
        conv = functools.partial(
            Conv, kernel_init=torch_uniform, lowering=self.lowering, dtype=self.dtype
        )
        norm = functools.partial(BatchNorm)
        if self.norm == "group":
            norm = functools.partial(GroupNorm, self.groups)
        x = conv(self.width, (3, 3), (1, 1), 1, name="stem")(images)
        x = norm(name="stem_norm")(x, train=train, mask=mask)
        levels = [_pixel_mean(x)]
        for stage, stride in enumerate(STRIDES):
            block = BasicBlock(self.width * 2**stage, stride, conv, norm, name=f"block_{stage + 1}")
            x = block(nn.relu(x), train=train, mask=mask)
            levels.append(_pixel_mean(x))
        features = _pixel_mean(nn.relu(x))
        classifier = nn.Dense(
            self.num_classes,
            kernel_init=torch_uniform,
            bias_init=functools.partial(_bias_init, self.feature_dim),
            name="classifier",
        )
        return Outputs(classifier(features), features, tuple(levels))


def _pixel_mean(x: jax.Array) -> jax.Array:
    """Return float32 [B, C] of [B, H, W, C]."""
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def _bias_init(fan_in: int, key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -1.0, 1.0) / fan_in**0.5
