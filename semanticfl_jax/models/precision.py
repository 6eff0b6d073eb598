"""Precision of a network's activations.

With bfloat16 activations, convolutions and hidden dense layers are in bfloat16, and parameters and
their gradients, normalisation statistics, pixel means, the classifier and all outputs stay in
float32. bfloat16 has float32's range, so that losses need no scaling (Kalamkar et al., arXiv
1905.12322).
"""

import jax.numpy as jnp

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def dtype_of(precision: str) -> type:
    """Return the type of activations that a configuration's `precision` means."""
    return PRECISIONS[precision]
