"""Count sketch: clients send a small table, whose sum tells the largest numbers of the mean.

Charikar, Chen, Farach-Colton. "Finding Frequent Items in Data Streams". ICALP 2002; for updates:
Rothchild, Panda, Ullah, Ivkin, Stoica, Braverman, Gonzalez, Arora. "FetchSGD: Communication-
Efficient Federated Learning with Sketching". ICML 2020.

    S_i[r, h_r(j)] += sign_r(j) u_i[j]        rows r, each with hashes of its own
    E   = E + sum_i p_i S_i                   what the server holds, linear in the updates
    v   = the k largest of  median_r sign_r(j) E[r, h_r(j)],   u = v in their places, else 0
    E'  = E, with zeros wherever u was read   error feedback, at the server

Clients keep nothing. The paper subtracts S(u) from E; its authors' code sets zeros, because the
difference diverged, and so it did here. Its authors have momentum in the sketch as well; here, a
server optimiser is given u. u_i are the parameters; running statistics travel as they are (ours,
see `flat`).
Hashes are random numbers of the run's seed. Sent: the table, 4 bytes a number.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, mean
from semanticfl_jax.algorithms.compression.flat import bytes_of_statistics, size_of, to_vector
from semanticfl_jax.algorithms.compression.top_k import kept
from semanticfl_jax.config.compression import CountSketchConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.randomness import HostStream, host_generator
from semanticfl_jax.types import PyTree


def count_sketch(settings: CountSketchConfig, context: AlgorithmContext) -> Aggregator:
    """Build the aggregator: a weighted mean of sketches, from which an update is read."""
    rows = settings.rows
    generator = host_generator(context.config.seed, HostStream.SKETCH)
    seed = int(generator.integers(2**31))

    def columns(size: int) -> int:
        return math.ceil(settings.share * size / rows)

    def start(model: Any) -> tuple[jax.Array, PyTree]:
        # The zeros tell `finish` the update's form.
        table = jnp.zeros((rows, columns(size_of(model.params))))
        return table, jax.tree.map(jnp.zeros_like, model.params)

    def encode(update: Any, received: PyTree, sender: Sender) -> PyTree:
        del received, sender
        vector, _ = to_vector(update.params)
        wide = columns(vector.size)
        return update._replace(params=sketch(vector, *hashes(seed, rows, wide, vector.size), wide))

    def finish(
        total: Any, key: jax.Array, state: tuple[jax.Array, PyTree]
    ) -> tuple[PyTree, tuple[jax.Array, PyTree]]:
        del key
        held, form = state
        zeros, back = to_vector(form)
        places, signs = hashes(seed, rows, held.shape[1], zeros.size)
        held = held + total.params
        told = estimate(held, places, signs)
        _, largest = jax.lax.top_k(jnp.abs(told), kept(settings.kept, zeros.size))
        update = zeros.at[largest].set(told[largest])
        left = jax.vmap(lambda row, read: row.at[read].set(0))(held, places[:, largest])
        return total._replace(params=back(update)), (left, form)

    return dataclasses.replace(
        mean(),
        name="count sketch",
        encode=encode,
        start=start,
        finish=finish,
        bytes_up=lambda update, size: (
            4 * rows * columns(size_of(update.params)) + bytes_of_statistics(update)
        ),
    )


def hashes(seed: int, rows: int, columns: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Return h, int32 [rows, size] below `columns`, and signs, float32 [rows, size]."""
    of_places, of_signs = jax.random.split(jax.random.key(seed))
    places = jax.random.randint(of_places, (rows, size), 0, columns, jnp.int32)
    return places, jax.random.rademacher(of_signs, (rows, size), jnp.float32)


def sketch(vector: jax.Array, places: jax.Array, signs: jax.Array, columns: int) -> jax.Array:
    """Return the sketch of float32 [P], [rows, columns]."""

    def row(places: jax.Array, signs: jax.Array) -> jax.Array:
        return jnp.zeros(columns).at[places].add(signs * vector)

    return jax.vmap(row)(places, signs)


def estimate(table: jax.Array, places: jax.Array, signs: jax.Array) -> jax.Array:
    """Return what a sketch tells of every number, float32 [P]: the median over rows."""
    return jnp.median(signs * jnp.take_along_axis(table, places, axis=1), axis=0)
