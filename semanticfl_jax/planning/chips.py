"""Accelerator chips: memory, bandwidth and peak, as their makers publish them.

Sources, read in November 2026: cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e ("Key chip
specifications"). These are peaks: no program reaches all of them.
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

#: By the name that a topology begins with, as in "v5e:4x4".
CHIPS = {
    "v4": Chip("TPU v4", 32 * _GIB, 1228e9, 275e12),
    "v5e": Chip("TPU v5e", 16 * _GIB, 819e9, 197e12),
    "v5p": Chip("TPU v5p", 95 * _GIB, 2765e9, 459e12),
    "v6e": Chip("TPU v6e", 32 * _GIB, 1640e9, 918e12),
}
