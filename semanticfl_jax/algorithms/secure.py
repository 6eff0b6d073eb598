"""Secure aggregation, simulated: the server sees a sum, and of each client only noise.

Bonawitz, Ivanov, Kreuter, Marcedone, McMahan, Patel, Ramage, Segal, Seth. "Practical Secure
Aggregation for Privacy-Preserving Machine Learning". CCS 2017.

    q_i = round( 2^f p_i cut(u_i, bound) )                              in the ring of 2^32
    y_i = q_i + sum of m_ij over j > i - sum of m_ji over j < i         sent
    u   = 2^-f sum_i y_i                                                the masks cancel

i and j are those of the cohort who report; m_ij is drawn from a key that two clients share. Sums in
a ring do not depend on their order: the result is the same bit for bit with masks or without, on
any number of devices. Running statistics have a bound and an f of their own (ours): they are as
large as activations and their squares, and cut ones would spoil the model. The key exchange, the
shares that recover the masks of who drops out, and the self-masks that protect late reports are not
computed; their bytes are counted (its Table 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from semanticfl_jax.algorithms.aggregators import Aggregator, Sender, Updates
from semanticfl_jax.algorithms.compression.flat import size_of
from semanticfl_jax.algorithms.model import Model
from semanticfl_jax.config.compression import SecureConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.privacy.accounting import noise_multiplier
from semanticfl_jax.types import PyTree

_RING = jnp.uint32
#: Bound and 2^f of running statistics, whose sums stay within the ring for any number of clients.
_STATISTICS = 2.0**12, 2.0**18
#: Bytes of a public key (X25519), and of a share of a key or a seed, encrypted with its tag.
_PUBLIC_KEY, _SHARE = 32, 32 + 16


def secure(settings: SecureConfig, context: AlgorithmContext) -> Aggregator:
    """Build the aggregator: the weighted mean in fixed point."""
    scale = 2.0**settings.fraction_bits
    cohort, private = context.config.clients_per_round, context.config.privacy
    if private.name == "local":
        settings.check_noise(private.settings.clip, noise_multiplier(context.config))

    def encode(update: Model, received: PyTree, sender: Sender) -> PyTree:
        del received

        def fixed(tree: PyTree, bound: float, scale: float) -> PyTree:
            def one(x: jax.Array) -> jax.Array:
                bounded = jnp.clip(jnp.nan_to_num(x), -bound, bound)
                number = jnp.round(scale * (sender.weight * bounded)).astype(jnp.int32)
                return jax.lax.bitcast_convert_type(number, _RING)

            return jax.tree.map(one, tree)

        params = fixed(update.params, settings.bound, scale)
        numbers = Model(params, fixed(update.batch_stats, *_STATISTICS))
        return masked(numbers, sender) if settings.masks else numbers

    def add(totals: PyTree, updates: Updates) -> PyTree:
        return jax.tree.map(
            lambda t, x: t + jnp.sum(x, axis=0, dtype=_RING), totals, updates.update
        )

    def finish(totals: Model, key: jax.Array) -> Model:
        del key

        def told(tree: PyTree, scale: float) -> PyTree:
            return jax.tree.map(
                lambda x: jax.lax.bitcast_convert_type(x, jnp.int32).astype(jnp.float32) / scale,
                tree,
            )

        return Model(told(totals.params, scale), told(totals.batch_stats, _STATISTICS[1]))

    def bytes_up(update: PyTree, size: int) -> int:
        del size
        others = cohort - 1
        # Two public keys; two shares for each other client; one share of each as masks are lifted.
        return 4 * size_of(update) + 2 * _PUBLIC_KEY + 2 * _SHARE * others + 32 * others

    def init(update: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), update)

    return Aggregator(
        "secure sum",
        finish,
        init,
        add,
        jax.lax.psum,
        encode=encode,
        bytes_up=bytes_up,
        bytes_down=2 * cohort * _PUBLIC_KEY + 2 * _SHARE * (cohort - 1),
    )


def masked(numbers: PyTree, sender: Sender) -> PyTree:
    """Return uint32 numbers with the masks that a client shares with each other of its cohort."""
    leaves, form = jax.tree.flatten(numbers)

    def with_mask(place: jax.Array, leaves: list[jax.Array]) -> list[jax.Array]:
        other = sender.cohort[place]
        low, high = jnp.minimum(sender.client, other), jnp.maximum(sender.client, other)
        shared = jax.random.fold_in(jax.random.fold_in(sender.round_key, low), high)
        counts = (other >= 0) & (other != sender.client)
        result = []
        for index, x in enumerate(leaves):
            mask = jax.random.bits(jax.random.fold_in(shared, index), x.shape, _RING)
            mask = jnp.where(sender.client < other, mask, jnp.zeros_like(mask) - mask)
            result.append(jnp.where(counts, x + mask, x))
        return result

    return form.unflatten(jax.lax.fori_loop(0, len(sender.cohort), with_mask, leaves))
