"""The device's own limit: how fast it multiplies matrices."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.devices.mesh import CLIENTS, split

# Large enough to fill a device, small enough to take a fraction of a second.
_SIZE = {"cpu": 2048}
_SIZE_ELSEWHERE = 8192
# Products of one program: one takes a millisecond or two on an accelerator, and its start counts.
_CHAIN = {"cpu": 1}
_CHAIN_ELSEWHERE = 20


def matmul_rate(
    mesh: Mesh, *, dtype=jnp.float32, size: int = 0, repeats: int = 10, chain: int = 0
) -> float:
    """Return the floating-point operations a second of square matrix products, all devices at once.

    Products are taken at JAX's default precision, as in training: of float32 that is full float32
    on CPU, TF32 on recent NVIDIA GPUs and bfloat16 on TPUs.

    Args:
      mesh: the devices; each multiplies matrices of its own.
      dtype: float32 or bfloat16.
      size: rows of a matrix; 0: 2048 on CPU, 8192 elsewhere.
      repeats: programs that are timed, after one that is not; the median counts.
      chain: products of a program, each of the last one's result; 0: 1 on CPU, 20 elsewhere.
    """
    chain = chain or _CHAIN.get(jax.default_backend(), _CHAIN_ELSEWHERE)
    size = size or _SIZE.get(jax.default_backend(), _SIZE_ELSEWHERE)
    spread = PartitionSpec(CLIENTS)
    multiply = jax.jit(
        jax.shard_map(
            lambda a, b: jax.lax.fori_loop(0, chain, lambda _, a: a @ b[0], a[0])[None],
            mesh=mesh,
            in_specs=(spread, spread),
            out_specs=spread,
        )
    )
    rng = np.random.default_rng(0)
    one = rng.normal(size=(2, 1, size, size)).astype(np.float32)
    one[1] /= np.sqrt(size)  # products of products stay as large
    a, b = (
        jax.device_put(np.broadcast_to(x, (mesh.size, size, size)), split(mesh)).astype(dtype)
        for x in one
    )
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        jax.block_until_ready(multiply(a, b))
        seconds.append(time.perf_counter() - began)
    return mesh.size * chain * 2 * size**3 / statistics.median(seconds[1:])
