"""2-d convolution for clients: how it is lowered (`operations`), and as a Flax layer (`layer`)."""

from semanticfl_jax.models.client_conv.layer import Conv
from semanticfl_jax.models.client_conv.operations import LOWERINGS, choose_lowering, conv

__all__ = ["LOWERINGS", "Conv", "choose_lowering", "conv"]
