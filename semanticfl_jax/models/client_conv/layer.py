"""The convolution as a Flax layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from semanticfl_jax.models.client_conv.operations import Padding, conv


class Conv(nn.Module):
    """Convolution layer: `flax.linen.Conv` with a choice of lowering, same parameters and values.

    Parameters: "kernel" [kh, kw, C_in, features] and, if `use_bias`, "bias" [features], float32.

    Attributes:
      features: output channels.
      kernel_size: rows, columns; a number stands for both.
      strides: rows, columns; a number stands for both.
      padding: "SAME", "VALID", or zeros on each side; see `conv`.
      use_bias: whether a bias is added.
      kernel_init: as in Flax.
      dtype: of the computation; by default that of the input and the parameters together.
      lowering: one of `LOWERINGS`.
    """

    features: int
    kernel_size: int | tuple[int, int] = (3, 3)
    strides: int | tuple[int, int] = (1, 1)
    padding: Padding = "SAME"
    use_bias: bool = False
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
    dtype: Any = None
    lowering: str = "auto"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, H, W, C_in] to [B, H', W', features]."""
        shape = (*_both(self.kernel_size), x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(x, kernel, _both(self.strides), self.padding, self.lowering)
        return y if bias is None else y + bias[None, None, None]


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    rows, columns = size
    return rows, columns
