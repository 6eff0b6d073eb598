"""Updates as one vector, what was left out of them, and how many bytes numbers take."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from semanticfl_jax.types import PyTree


def size_of(update: PyTree) -> int:
    """Return P, the numbers of an update, or of its shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(update))


def packed(count: int, bits: int) -> int:
    """Return the bytes of `count` numbers of `bits` bits each, packed."""
    return -(-count * bits // 8)


def index_bits(size: int) -> int:
    """Return the bits of a place among `size`."""
    return max(1, math.ceil(math.log2(size)))


def to_vector(update: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
    """Return an update as float32 [P], and what makes an update of such a vector."""
    leaves, form = jax.tree.flatten(update)
    sizes = [x.size for x in leaves]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]

    def back(vector: jax.Array) -> PyTree:
        parts = jnp.split(vector, ends)
        return form.unflatten(
            [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
        )

    return jnp.concatenate([x.reshape(-1) for x in leaves]), back


def zeros_of(update: PyTree) -> PyTree:
    """Return the state of error feedback before the first round: nothing was left out."""
    return jax.tree.map(jnp.zeros_like, update)


def feed_back(
    compress: Callable[[PyTree, jax.Array], PyTree], feedback: bool
) -> Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, PyTree]]:
    """Return the `apply` of a transform that adds what was left out of the last updates.

    Seide, Fu, Droppo, Li, Yu. "1-Bit Stochastic Gradient Descent". Interspeech 2014; Karimireddy,
    Rebjock, Stich, Jaggi. "Error Feedback Fixes SignSGD". ICML 2019.

        v = C( u + e ),    e' = u + e - v

    Args:
      compress: C, of an update and a key.
      feedback: whether to; otherwise nothing is kept.
    """

    def apply(update: PyTree, left: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        if not feedback:
            return compress(update, key), left
        whole = jax.tree.map(jnp.add, update, left)
        sent = compress(whole, key)
        return sent, jax.tree.map(jnp.subtract, whole, sent)

    return apply
