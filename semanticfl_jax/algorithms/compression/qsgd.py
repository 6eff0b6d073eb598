"""QSGD: numbers as a few levels of the update's norm, at random such that the mean is kept.

Alistarh, Grubic, Li, Tomioka, Vojnovic. "QSGD: Communication-Efficient SGD via Gradient
Quantization and Encoding". NeurIPS 2017.

    v[j] = |u| sign(u[j]) l[j] / s,    l[j] = floor(a) or one more, with probability a - floor(a),
    a    = s |u[j]| / |u|

One norm for the whole update, s levels, E v = u. A number costs a sign and ceil(log2(s + 1)) bits
(a code of fixed length; its authors' Elias code is shorter where most levels are 0), the norm 4
bytes.
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.compression.flat import (
    index_bits,
    of_parameters,
    packed,
    size_of,
    to_vector,
)
from semanticfl_jax.algorithms.transforms import UpdateTransform, nothing
from semanticfl_jax.config.compression import QSGDConfig
from semanticfl_jax.types import PyTree


def qsgd(settings: QSGDConfig, context: object = None) -> UpdateTransform:
    """Build the transform; clients keep nothing."""
    del context
    levels = settings.levels

    def apply(update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        vector, back = to_vector(update)
        norm = jnp.sqrt(jnp.sum(jnp.square(vector)))
        scaled = levels * jnp.abs(vector) / jnp.where(norm > 0, norm, 1.0)
        level = jnp.floor(scaled + jax.random.uniform(key, vector.shape))
        level = jnp.minimum(level, levels)  # rounding may reach one more
        return back(norm / levels * jnp.sign(vector) * level), state

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        return packed(size_of(update), 1 + index_bits(levels + 1)) + 4

    return of_parameters(UpdateTransform("qsgd", apply, nothing, bytes_up))
