"""Accelerator chips: memory, bandwidth and peak, as their makers publish them.

Those of TPUs stand in cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e ("Key chip
specifications"). Those of v5e were read there in November 2026, memory and peak of v4 and v5p in
pages that cite them; the others are to be checked there. Memory and bandwidth of GPUs (SXM) are
what XLA keeps of them (gpus.py); their peaks, without sparsity, are to be checked in NVIDIA's data
sheets. These are peaks: no program reaches all of them.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """A chip's published figures.

    Attributes:
      name: what people call it.
      memory: bytes of HBM.
      bandwidth: bytes a second between HBM and chip.
      peak: floating-point operations a second of its matrix units in bfloat16.
    """

    name: str
    memory: float
    bandwidth: float
    peak: float


_GIB = 2.0**30

#: By the name that a topology begins with, as in "v5e:4x4" or "h100:8".
CHIPS = {
    "v4": Chip("TPU v4", 32 * _GIB, 1228e9, 275e12),
    "v5e": Chip("TPU v5e", 16 * _GIB, 819e9, 197e12),
    "v5p": Chip("TPU v5p", 95 * _GIB, 2765e9, 459e12),
    "v6e": Chip("TPU v6e", 32 * _GIB, 1640e9, 918e12),
    "a100": Chip("NVIDIA A100 80 GB", 85100068864, 2039e9, 312e12),
    "h100": Chip("NVIDIA H100 80 GB", 84942979072, 3352e9, 989e12),
    "h200": Chip("NVIDIA H200 141 GB", 151397597184, 4800e9, 989e12),
    "b200": Chip("NVIDIA B200", 191514411008, 7672e9, 2250e12),
}
