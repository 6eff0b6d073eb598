"""Long work on many images, batch by batch: over all local devices, with progress, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from semanticfl_jax import files
from semanticfl_jax.array_files import kept_npz
from semanticfl_jax.devices.mesh import device_mesh

#: Latent positions a batch and device by default: 128 images at 64 pixels of a checkpoint that
#: halves three times, 8 at 256, 2 at 512, where an attention map alone takes half a gigabyte an
#: image (our choice).
_POSITIONS = 8192


def default_batch_size(positions: int, devices: int | None = None) -> int:
    """Return a batch's images over all local devices, for images of `positions` in latents."""
    return max(1, _POSITIONS // positions) * (devices or jax.local_device_count())


def image_mesh(count: int) -> Mesh:
    """Return the local devices that share `count` images: at most one an image."""
    devices = jax.local_devices()[: max(1, min(len(jax.local_devices()), count))]
    return device_mesh(devices, "images")


def over_batches(
    compute: Callable[..., dict[str, jax.Array]],
    constant: Sequence[Any],
    rows: Sequence[np.ndarray],
    batch_size: int,
    *,
    what: str,
    parts: Path | None = None,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Apply a function to rows, batch by batch.

    Args:
      compute: (*constant, *batch) -> {name: array [B, ...]}, of compiled functions; a row's result
        must not depend on other rows.
      constant: pytrees that every device gets once, such as weights.
      rows: arrays [n, ...]; a batch holds B rows of each, spread over the devices.
      batch_size: rows a batch, rounded up to a multiple of the devices.
      what: names the progress bar.
      parts: directory where each batch's result is kept as soon as it is there, so that an
        interrupted call goes on; its name must tell apart what decides the results. Whoever owns
        the final result removes it (`discard`). None keeps nothing.
      progress: whether to show a progress bar.

    Returns:
      {name: array [n, ...]}.
    """
    count = len(rows[0])
    mesh = image_mesh(count)
    by_image = NamedSharding(mesh, PartitionSpec("images"))
    size = -(-min(batch_size, count) // mesh.size) * mesh.size
    on_devices = None
    results = []
    with tqdm(total=count, desc=what, unit="image", disable=not progress) as bar:
        for start in range(0, count, size):
            stop = min(start + size, count)
            path = parts / f"{start}-{stop}.npz" if parts else None
            result = _read(path)
            if result is None:
                if on_devices is None:
                    everywhere = NamedSharding(mesh, PartitionSpec())
                    on_devices = jax.device_put(tuple(constant), everywhere)
                # The last batch is filled up with repetitions, which are cut off again.
                chosen = np.arange(start, start + size).clip(max=count - 1)
                batch = jax.device_put(tuple(array[chosen] for array in rows), by_image)
                found = compute(*on_devices, *batch)
                result = {name: np.asarray(x)[: stop - start] for name, x in found.items()}
                if path:
                    _write(path, result)
            results.append(result)
            bar.update(stop - start)
    return {name: np.concatenate([part[name] for part in results]) for name in results[0]}


def discard(parts: Path) -> None:
    """Remove what `over_batches` kept in `parts`, and the directory above if nothing is left."""
    shutil.rmtree(parts, ignore_errors=True)
    if parts.parent.is_dir() and not any(parts.parent.iterdir()):
        parts.parent.rmdir()


def _read(path: Path | None) -> dict[str, np.ndarray] | None:
    return None if path is None else kept_npz(path)  # computed again where it is damaged


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    files.write(path, lambda file: np.savez(file, **arrays))
