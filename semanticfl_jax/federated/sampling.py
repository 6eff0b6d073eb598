"""Which clients a round asks: drawn by (seed, round) alone."""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from semanticfl_jax.randomness import Stream, round_key, stream_key

# From so many clients on, cohorts of no more than half of them are drawn without sorting all. Below
# it, seeds draw the cohorts that they always drew.
_MANY = 200_000
# Rounds of the Feistel network: four make a permutation that passes for random (Luby and Rackoff,
# SIAM J. Comput., 1988) if each is; twice as many cost nothing here.
_FEISTEL = 8


class Sampler(Protocol):
    """Draws the cohort of a round."""

    def __call__(
        self, key: jax.Array, number: jax.Array, sizes: jax.Array, count: int, /
    ) -> jax.Array:
        """Return the ids of `count` different clients, int32 [count].

        Args:
          key: the run's.
          number: of the round, int32 scalar.
          sizes: int32 [N], samples of each client.
          count: how many.
        """


def _at_random(
    key: jax.Array, number: jax.Array, num_clients: int, count: int, shares: jax.Array | None
) -> jax.Array:
    """Draw distinct clients by `shares` float32 [N] of those that are left; None: all alike."""
    ids = jnp.arange(num_clients, dtype=jnp.int32)
    cohort_key = round_key(key, Stream.COHORT, number)
    return jax.random.choice(cohort_key, ids, (count,), replace=False, p=shares)


def _uniform(key: jax.Array, number: jax.Array, sizes: jax.Array, count: int) -> jax.Array:
    """Draw at random, all alike."""
    num_clients = sizes.shape[0]
    if _few_of_many(num_clients, count):
        return draw_distinct(round_key(key, Stream.COHORT, number), num_clients, count)
    return _at_random(key, number, num_clients, count, None)


def _few_of_many(num_clients: int, count: int) -> bool:
    return num_clients >= _MANY and 2 * count <= num_clients


def draw_distinct(key: jax.Array, total: int, count: int) -> jax.Array:
    """Draw `count` different numbers below `total` in O(count log count): int32 [count].

    Every ordered draw is equally likely.

    Args:
      key: of this draw.
      total: some times `count` at least, or it takes many turns.
      count: how many.
    """

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (count,), 0, total, jnp.int32)

    return first_distinct(key, draw, count)


def first_distinct(
    key: jax.Array, draw_all: Callable[[jax.Array], jax.Array], count: int
) -> jax.Array:
    """Draw `count` different numbers, one after another of those that are left: int32 [count].

    All are drawn at once; of equal ones the first stays and the others are drawn again, until none
    are equal. A number is only drawn again because one before it holds the same, and then that or
    one still before it holds it in the end: so each is the first of its independent draws that
    those before it do not hold, as if drawn in proportion among those left. (Our choice; Floyd's
    algorithm, Commun. ACM 1987, needs `count` steps one after another.)

    Args:
      key: of this draw.
      draw_all: key -> int32 [count], independent, equal ones allowed.
      count: how many; with numbers enough that are not unlikely, or it takes many turns.
    """

    def draw(turn: jax.Array) -> jax.Array:
        return draw_all(jax.random.fold_in(key, turn))

    def again(carry: tuple[jax.Array, jax.Array, jax.Array]):
        turn, drawn, _ = carry
        order = jnp.argsort(drawn, stable=True)
        ordered = drawn[order]
        repeated = jnp.zeros(count, bool).at[order[1:]].set(ordered[1:] == ordered[:-1])
        return turn + 1, jnp.where(repeated, draw(turn), drawn), jnp.any(repeated)

    first = jnp.ones((), jnp.int32), draw(jnp.zeros((), jnp.int32)), jnp.array(True)
    return jax.lax.while_loop(lambda carry: carry[2], again, first)[1]


def _size_weighted(key: jax.Array, number: jax.Array, sizes: jax.Array, count: int) -> jax.Array:
    """Draw one after another, each time in proportion to the sizes of those that are left."""

    def among_all() -> jax.Array:
        shares = sizes / jnp.sum(sizes.astype(jnp.float32))
        return _at_random(key, number, sizes.shape[0], count, shares)

    if not _few_of_many(sizes.shape[0], count):
        return among_all()
    # A sample at random has an owner in proportion to sizes; it is found among where they end.
    ends = jnp.cumsum(sizes)

    def owners(key: jax.Array) -> jax.Array:
        samples = jax.random.randint(key, (count,), 0, ends[-1], jnp.int32)
        return jnp.searchsorted(ends, samples, side="right").astype(jnp.int32)

    def by_samples() -> jax.Array:
        return first_distinct(round_key(key, Stream.COHORT, number), owners, count)

    # The largest clients together hold half of the samples at most: few are drawn twice.
    even = 2.0 * count * jnp.max(sizes) <= ends[-1]
    return jax.lax.cond(even, by_samples, among_all)


def _in_turn(number: jax.Array, num_clients: int, count: int) -> jax.Array:
    """Return places 0, 1, ... of an endless ring of clients, `count` a round, none twice in one."""
    turn = (number % num_clients) * (count % num_clients)  # the same place, without overflow
    return (turn + jnp.arange(count, dtype=jnp.int32)) % num_clients


def _round_robin(key: jax.Array, number: jax.Array, sizes: jax.Array, count: int) -> jax.Array:
    """Take clients in turn, in a random order drawn once."""
    if _few_of_many(sizes.shape[0], count):
        places = _in_turn(number, sizes.shape[0], count)
        return permuted(stream_key(key, Stream.ORDER), places, sizes.shape[0])
    ids = jnp.arange(sizes.shape[0], dtype=jnp.int32)
    order = jax.random.permutation(stream_key(key, Stream.ORDER), ids)
    return order[_in_turn(number, sizes.shape[0], count)]


def permuted(key: jax.Array, places: jax.Array, total: int) -> jax.Array:
    """Return what a random permutation of 0..total-1 has at some places, int32 as they are.

    A Feistel network permutes the numbers of as many bits; what it takes out of range is permuted
    again until it is not (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    Nothing is computed of other places.

    Args:
      key: of the permutation.
      places: int32 [count], from 0 to total - 1.
      total: how many are permuted.
    """
    half = max(1, -(-(total - 1).bit_length() // 2))
    mask = jnp.uint32(2**half - 1)
    keys = jax.random.split(key, _FEISTEL)

    def mixed(key: jax.Array, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: jax.random.bits(jax.random.fold_in(key, x), (), jnp.uint32))(x)

    def permute(x: jax.Array) -> jax.Array:
        def turn(index: jax.Array, halves: tuple[jax.Array, jax.Array]):
            left, right = halves
            return right, left ^ (mixed(keys[index], right) & mask)

        left, right = jax.lax.fori_loop(0, _FEISTEL, turn, (x >> half, x & mask))
        return (left << half) | right

    def outside(x: jax.Array) -> jax.Array:
        return jnp.any(x >= total)

    first = permute(places.astype(jnp.uint32))
    found = jax.lax.while_loop(outside, lambda x: jnp.where(x >= total, permute(x), x), first)
    return found.astype(jnp.int32)


def _fixed_order(key: jax.Array, number: jax.Array, sizes: jax.Array, count: int) -> jax.Array:
    """Take clients in turn, by number."""
    del key
    return _in_turn(number, sizes.shape[0], count)


#: By the name that `availability.sampling` gives; "poisson" draws cohorts of no fixed size.
SAMPLERS: dict[str, Sampler] = {
    "uniform": _uniform,
    "size_weighted": _size_weighted,
    "round_robin": _round_robin,
    "fixed_order": _fixed_order,
}


def draw_cohort(
    sampling: str, key: jax.Array, number: jax.Array, sizes: jax.Array, count: int, places: int
) -> jax.Array:
    """Draw who is asked in a round.

    Args:
      sampling: as in the configuration.
      key: the run's.
      number: of the round, int32 scalar.
      sizes: int32 [N], samples of each client.
      count: how many; of Poisson sampling on average.
      places: `cohort_places`.

    Returns:
      int32 [places], ids of different clients; -1 in empty places, which come last.
    """
    if sampling == "poisson":
        return _poisson(key, number, sizes.shape[0], count, places)
    return SAMPLERS[sampling](key, number, sizes, count)


def _poisson(
    key: jax.Array, number: jax.Array, num_clients: int, mean: int, places: int
) -> jax.Array:
    """Draw each client by itself with probability mean / N; of more than `places`, some at random.

    A client is in if its number of 32 random bits is low enough; who has the lowest comes first.
    """
    if mean == num_clients:
        return jnp.arange(num_clients, dtype=jnp.int32)
    drawn = jax.random.bits(round_key(key, Stream.COHORT, number), (num_clients,), jnp.uint32)
    highest, ids = jax.lax.top_k(~drawn, places)
    below = jnp.uint32(int(mean / num_clients * 2**32))
    return jnp.where(~highest < below, ids.astype(jnp.int32), -1)
