"""Updates as one vector, what was left out of them, and how many bytes numbers take.

Of a model, the parameters are compressed. Running statistics travel as they are, in four bytes a
number (ours): they are averages and no sums of steps, so that what was left out of several rounds
must not be added up, and a variance with noise, or moved by a vote, may fall below zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.transforms import UpdateTransform
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


def of_parameters(transform: UpdateTransform) -> UpdateTransform:
    """Return the transform of an update's parameters, made of one of any tree of arrays."""

    def apply(update: Any, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        params, state = transform.apply(update.params, state, key)
        return update._replace(params=params), state

    def bytes_up(update: Any, size: int) -> int:
        return transform.bytes_up(update.params, size) + bytes_of_statistics(update)

    return dataclasses.replace(
        transform, apply=apply, init=lambda update: transform.init(update.params), bytes_up=bytes_up
    )


def bytes_of_statistics(update: Any) -> int:
    """Return the bytes that an update's running statistics, or their shapes, take as they are."""
    return 4 * size_of(update.batch_stats)
