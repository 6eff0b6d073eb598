"""How much memory arrays take, and how much devices and host can still give."""

import os

import jax

from semanticfl_jax.types import PyTree


def size_in_bytes(tree: PyTree) -> int:
    """Return bytes of all arrays of a tree, or of what their shapes and types stand for."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_device_memory(device: jax.Device) -> int | None:
    """Return bytes that a device can still give; None where it does not tell, as CPU devices."""
    figures = device.memory_stats() or {}
    if "bytes_limit" not in figures:
        return None
    return figures["bytes_limit"] - figures.get("bytes_in_use", 0)


def free_host_memory() -> int:
    """Return the bytes that the host can still give; all it has where it tells no more (macOS)."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
