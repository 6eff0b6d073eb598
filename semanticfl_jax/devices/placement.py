"""Arrays that every process holds, onto devices that may belong to several processes."""

from __future__ import annotations

import jax
import numpy as np

from semanticfl_jax.types import PyTree


def put(tree: PyTree, sharding: jax.sharding.Sharding | None = None) -> PyTree:
    """Put arrays on devices as `jax.device_put`, but do not check that all processes put the same.

    That check gathers every process's copy on every device, which for a data set would be far more
    than the data set.

    Args:
      tree: arrays, equal in all processes, on the host or on devices of this process.
      sharding: where they go, as for `jax.device_put`.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def spread(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(
                spread(jax.random.key_data(x)), impl=jax.random.key_impl(x)
            )
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(spread, tree)
