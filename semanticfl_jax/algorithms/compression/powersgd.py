"""PowerSGD: every matrix of an update as a product of two narrow ones.

Vogels, Karimireddy, Jaggi. "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization". NeurIPS 2019.

    P = orthonormal basis of M Q,    Q' = M^T P,    v = P Q'^T     with error feedback

One step of subspace iteration, which begins with the client's last Q' (from random columns at
first). An array [.., b] is a matrix of as many rows as its other axes hold; what is no matrix, or
would take more as two, travels as it is. Its authors average M Q over workers before the second
product; here each client has its own P and Q, since a cohort is asked only once a round (ours).
"""

import math

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.compression.flat import of_parameters, zeros_of
from semanticfl_jax.algorithms.transforms import UpdateTransform
from semanticfl_jax.config.compression import PowerSGDConfig
from semanticfl_jax.types import PyTree


def powersgd(settings: PowerSGDConfig, context: object = None) -> UpdateTransform:
    """Build the transform; a client keeps an update, and a narrow matrix of each of its arrays."""
    del context
    rank = settings.rank

    def init(update: PyTree) -> tuple[PyTree, list[jax.Array]]:
        start = [
            jax.random.normal(jax.random.key(index), (x.shape[-1], rank), jnp.float32)
            for index, x in enumerate(jax.tree.leaves(update))
            if narrow(x, rank)
        ]
        return zeros_of(update), start

    def apply(update: PyTree, state: PyTree, key: jax.Array) -> tuple[PyTree, PyTree]:
        del key
        left, bases = state
        whole = jax.tree.map(jnp.add, update, left)
        leaves, form = jax.tree.flatten(whole)
        sent, kept, before = [], [], iter(bases)
        for x in leaves:
            if not narrow(x, rank):
                sent.append(x)
                continue
            matrix = x.reshape(-1, x.shape[-1])
            basis, _ = jnp.linalg.qr(matrix @ next(before))
            right = matrix.T @ basis
            sent.append((basis @ right.T).reshape(x.shape))
            # An update of zero would leave nothing to begin with.
            kept.append(jnp.where(jnp.any(right != 0), right, bases[len(kept)]))
        sent = form.unflatten(sent)
        return sent, (jax.tree.map(jnp.subtract, whole, sent), kept)

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        count = 0
        for x in jax.tree.leaves(update):
            rows = math.prod(x.shape[:-1])
            count += rank * (rows + x.shape[-1]) if narrow(x, rank) else math.prod(x.shape)
        return 4 * count

    return of_parameters(UpdateTransform("powersgd", apply, init, bytes_up))


def narrow(x: jax.Array, rank: int) -> bool:
    """Return whether two matrices of that rank are smaller than the array."""
    if len(x.shape) < 2:
        return False
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    return rank < min(rows, columns) and rank * (rows + columns) < rows * columns
