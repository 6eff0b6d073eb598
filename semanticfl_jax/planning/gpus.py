"""NVIDIA GPUs as XLA's compiler has to know them, where none is there."""

from __future__ import annotations

from typing import NamedTuple

from semanticfl_jax.planning.chips import CHIPS


class Gpu(NamedTuple):
    """What a compiler asks of a GPU, beside its memory and bandwidth.

    The values are those that XLA keeps for the GPUs of a data centre
    (github.com/openxla/xla, xla/backends/gpu/target_config/specs; read in November 2026).

    Attributes:
      compute_capability: its major number.
      multiprocessors: how many it has.
      float_units: of each of them, for float32.
      shared_memory: bytes of each.
      l2: bytes of the level 2 cache.
      clock: GHz.
    """

    compute_capability: int
    multiprocessors: int
    float_units: int
    shared_memory: int
    l2: int
    clock: float


#: By name, as in `CHIPS`.
GPUS = {
    "a100": Gpu(8, 108, 64, 167936, 41943040, 1.41),
    "h100": Gpu(9, 132, 128, 233472, 52428800, 1.98),
    "h200": Gpu(9, 132, 128, 233472, 52428800, 1.98),
    "b200": Gpu(10, 148, 128, 233472, 132644864, 1.965),
}


def target_config(kind: str) -> str:
    """Return a GPU's description in the text that XLA reads (`GpuTargetConfigProto`).

    The limits that stand in it as numbers are the same for all of `GPUS`. So are the versions, of
    cuDNN 9.10 and CUDA 12.8: what compiles here knows of no installed library.

    Args:
      kind: of `GPUS`.
    """
    chip, gpu = CHIPS[kind], GPUS[kind]
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu.compute_capability} }}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.float_units}
  clock_rate_ghz: {gpu.clock}
  device_memory_size: {chip.memory:.0f}
  memory_bandwidth: {chip.bandwidth:.0f}
  l2_cache_size: {gpu.l2}
  shared_memory_per_core: {gpu.shared_memory}
  shared_memory_per_block_optin: {gpu.shared_memory - 1024}
  shared_memory_per_block: 49152
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  threads_per_warp: 32
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{chip.name}"
"""
