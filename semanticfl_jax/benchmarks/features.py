"""How fast features are extracted, and in how much memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from semanticfl_jax.devices.machine import peak_memory
from semanticfl_jax.devices.versions import versions
from semanticfl_jax.diffusion.batches import image_mesh
from semanticfl_jax.diffusion.features import default_maps, extract_features
from semanticfl_jax.diffusion.random_sd15 import NAME, random_sd15
from semanticfl_jax.diffusion.stable_diffusion import StableDiffusion, load
from semanticfl_jax.reporting.spread import spread
from semanticfl_jax.types import Say


def measure(
    checkpoint: str,
    *,
    dtype: str = "float32",
    batch_sizes: Sequence[int] = (1, 2, 4),
    resolution: int | None = None,
    repeats: int = 3,
    say: Say = print,
) -> dict[str, Any]:
    """Time `extract_features` (VAE, and U-Net down to the default maps), one batch a call.

    A call ends with features on the host. The weights are on the devices before, in as many copies
    as the batch has devices. Memory is the peak of the process so far, hence the sizes ascend.

    Args:
      checkpoint: what `load` takes, or "random-sd15".
      dtype: "float32" or "bfloat16".
      batch_sizes: numbers of images.
      resolution: side of the images; the checkpoint's own if None.
      repeats: calls that are timed, after one that is not.
      say: takes lines for the user.

    Returns:
      What was run on what, and in "batches", a dictionary a batch size: `seconds` and
      `images_per_second` (median, least and greatest), `compile_seconds` (the first call's beyond
      the median), `peak_memory_bytes`.
    """
    began = time.perf_counter()
    sd = random_sd15(dtype) if checkpoint == NAME else load(checkpoint, dtype=dtype)
    load_seconds = time.perf_counter() - began
    resolution = resolution or sd.image_size
    sizes = {name: _parameters(tree) for name, tree in sd.params.items()}
    listed = ", ".join(f"{name} {count / 1e6:.1f} M" for name, count in sizes.items())
    say(f"{checkpoint} in {dtype}: {listed}; ready after {load_seconds:.0f} s")
    text = np.asarray(sd.text(["a photo of a cat"])[0])
    batches = []
    for size in sorted(batch_sizes):
        batches.append(_measure_batch(sd, text, size, resolution, repeats))
        say(_line(batches[-1]))
    return {
        "checkpoint": checkpoint,
        "dtype": dtype,
        "resolution": resolution,
        "maps": list(default_maps(sd)),
        "parameters": sizes,
        "load_seconds": load_seconds,
        "repeats": repeats,
        "batches": batches,
        "peak_memory_of": peak_memory()["peak_memory_of"],
        "device": f"{len(jax.local_devices())} x {jax.local_devices()[0].device_kind}",
        "versions": versions(),
    }


def _measure_batch(
    sd: StableDiffusion, text: np.ndarray, size: int, resolution: int, repeats: int
) -> dict[str, Any]:
    mesh = image_mesh(size)
    placed = jax.device_put(sd, NamedSharding(mesh, PartitionSpec()))
    shape = (size, resolution, resolution, 3)
    images = np.random.default_rng(size).integers(0, 256, shape, dtype=np.uint8)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        extract_features(
            placed,
            images,
            text,
            np.zeros(size, int),
            batch_size=size,
            resolution=resolution,
            progress=False,
        )
        seconds.append(time.perf_counter() - began)
    first, *others = seconds
    return {
        "batch_size": size,
        "devices": mesh.size,
        "seconds": spread(others),
        "images_per_second": spread([size / each for each in others]),
        "compile_seconds": max(first - statistics.median(others), 0.0),
        "peak_memory_bytes": peak_memory()["peak_memory_bytes"],
    }


def _line(batch: dict[str, Any]) -> str:
    return (
        f"{batch['batch_size']} images on {batch['devices']} devices: "
        f"{batch['seconds']['median']:.2f} s, {batch['images_per_second']['median']:.3g} images/s, "
        f"compiled in {batch['compile_seconds']:.0f} s, "
        f"peak memory {batch['peak_memory_bytes'] / 1e9:.2f} GB"
    )


def _parameters(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
