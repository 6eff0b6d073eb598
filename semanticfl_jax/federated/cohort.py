"""Where a round's clients are trained, which of them report, and how much of their work they do.

What befalls a client depends on (seed, round, client id).
"""

import jax
import jax.numpy as jnp

from semanticfl_jax.config import AvailabilityConfig, ExperimentConfig
from semanticfl_jax.randomness import Stream, client_key, round_key


def cohort_places(config: ExperimentConfig) -> int:
    """Return the most clients that a cohort of a run can have."""
    return config.availability.places(config.num_clients, config.clients_per_round)


def place_cohort(
    cohort: jax.Array, sizes: jax.Array, batch_size: int, devices: int, chunk: int
) -> jax.Array:
    """Assign a cohort to devices, each about equal work, and chunks, each clients of like work.

    The largest first, `chunk` clients at a time go to the device that has the fewest steps so far
    and places left: Graham's rule, longest processing time first (SIAM J. Appl. Math., 1969), with
    the places of each device limited to what an even share of the clients takes (our choice).

    Args:
      cohort: int32 [m].
      sizes: int32 [m], samples of each.
      batch_size: samples a step.
      devices: how many devices share the cohort.
      chunk: clients trained at once on each.

    Returns:
      int32 [devices * places], the first `places` for the first device and so on; `places` is a
      multiple of `chunk`; -1 fills empty places.
    """
    most = -(-cohort.shape[0] // (devices * chunk))
    empty = devices * most * chunk - cohort.shape[0]
    order = jnp.argsort(-sizes, stable=True)
    chunks = jnp.pad(cohort[order], (0, empty), constant_values=-1).reshape(-1, chunk)
    if devices == 1:
        return chunks.reshape(-1)

    def deal(carry, load):
        loads, dealt = carry
        device = jnp.argmin(jnp.where(dealt < most, loads, jnp.iinfo(loads.dtype).max))
        carry = loads.at[device].add(load), dealt.at[device].add(1)
        return carry, device * most + dealt[device]

    steps = jnp.pad(-(-sizes[order] // batch_size), (0, empty))
    work = jnp.sum(steps.reshape(-1, chunk), axis=1)
    nothing = jnp.zeros(devices, work.dtype)
    _, slots = jax.lax.scan(deal, (nothing, nothing), work)
    return jnp.zeros_like(chunks).at[slots].set(chunks).reshape(-1)


def draw_reporting(
    key: jax.Array, number: jax.Array, clients: jax.Array, dropout: float
) -> jax.Array:
    """Draw who of `clients` int32 [places] reports: bool [places]; nobody in empty places, -1.

    Every client drops out with probability `dropout`, independently of the others and of rounds
    before.
    """
    if dropout == 0:
        return clients >= 0
    drawn_from = round_key(key, Stream.DROPOUT, number)
    keys = jax.vmap(client_key, (None, 0))(drawn_from, clients)
    dropped = jax.vmap(lambda k: jax.random.bernoulli(k, dropout))(keys)
    return (clients >= 0) & ~dropped


def samples_of(client: jax.Array, sizes: jax.Array) -> jax.Array:
    """Return the samples of a client, or of several, of `sizes` int32 [N]; 0 in an empty place."""
    return jnp.where(client < 0, 0, sizes[client])


def straggle(key: jax.Array, steps: jax.Array, config: AvailabilityConfig) -> jax.Array:
    """Draw the local steps that a client does of its `steps`, int32 scalar.

    With probability `straggler_share` it is a straggler in this round and does a part drawn
    uniformly from `straggler_min_work` to 1, rounded down, and one step at least. (FedProx, MLSys
    2020, has stragglers do a number of epochs drawn uniformly; parts of all steps are our choice.)

    Args:
      key: of (seed, round, client).
      steps: int32 scalar; 0 stays 0.
      config: shares.
    """
    if config.straggler_share == 0:
        return steps
    who_key, work_key = jax.random.split(key)
    part = jax.random.uniform(work_key, (), jnp.float32, config.straggler_min_work, 1.0)
    some = jnp.maximum(jnp.floor(part * steps).astype(jnp.int32), jnp.minimum(steps, 1))
    return jnp.where(jax.random.bernoulli(who_key, config.straggler_share), some, steps)


def with_contacts(contacted: jax.Array, clients: jax.Array) -> jax.Array:
    """Return `contacted` bool [num_clients] with `clients` added; -1 is nobody.

    It is changed in place where it is donated, so that it costs what the cohort does.
    """
    nowhere = jnp.where(clients < 0, contacted.shape[0], clients)
    return contacted.at[nowhere].set(True, mode="drop")
