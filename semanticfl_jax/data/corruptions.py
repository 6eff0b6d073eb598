"""Feature skew: clients whose images are corrupted, each by one kind and severity of its own.

A corruption is a property of a client's pictures, as a bad camera's, and no augmentation: it is
applied once, on the host, before the images are uploaded, and costs nothing in training. Test
images and the server's public images stay as they are. Kinds and severities are our choice, after
the common corruptions of Hendrycks and Dietterich (ICLR 2019).

What severity s in 0..1 means; 0 changes nothing:

    noise           Gaussian, of standard deviation 64 s (of 255), drawn for each value
    blur            Gaussian, of standard deviation s/16 of each side: 2 s pixels of 32
    low_resolution  shrunk to 1 - 0.75 s of each side, by averaging areas, and back, bilinearly
    contrast        1 - 0.85 s of each value's distance from the image's mean is left
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from semanticfl_jax.config.heterogeneity import FeatureSkewConfig
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.randomness import HostStream, host_generator

# Images at a time, so that memory does not follow a client's size.
_BATCH = 2048


class Corruptions(NamedTuple):
    """What befalls the images of each of N clients.

    Attributes:
      kinds: a name in `KINDS` for each client, or None.
      severities: float32 `[N]`, 0 where the kind is None.
    """

    kinds: tuple[str | None, ...]
    severities: np.ndarray


def draw_corruptions(config: FeatureSkewConfig, num_clients: int, seed: int) -> Corruptions:
    """Draw who is corrupted, how, and how badly.

    Exactly `round(share * num_clients)` clients are, chosen at random; a kind is drawn uniformly,
    a severity uniformly from `min_severity` to `max_severity`. Nothing depends on the partition,
    and what a corrupted client suffers depends on the seed and its number alone.

    Raises:
      SemanticFLError: if seed is negative.
    """
    if seed < 0:
        raise SemanticFLError(f"seed must be at least 0, got {seed}")
    order, kinds, severities = (
        host_generator(seed, HostStream.CORRUPTIONS, part).random(num_clients) for part in range(3)
    )
    corrupted = np.zeros(num_clients, bool)
    if config.corruptions:
        corrupted[np.argsort(order, kind="stable")[: round(config.share * num_clients)]] = True
    span = config.max_severity - config.min_severity
    severities = np.where(corrupted, config.min_severity + span * severities, 0)
    names = [config.corruptions[int(u * len(config.corruptions))] for u in kinds[corrupted]]
    found = iter(names)
    return Corruptions(
        tuple(next(found) if each else None for each in corrupted), severities.astype(np.float32)
    )


def corrupt_clients(
    images: np.ndarray, partition: Partition, corruptions: Corruptions, seed: int
) -> np.ndarray:
    """Corrupt every client's images.

    An image's noise depends on the seed and its index alone.

    Args:
      images: uint8 `[n, H, W, 3]`, possibly memory-mapped; not changed.
      partition: of these images, or of some of them; images of no client stay.
      corruptions: of its clients.
      seed: at least 0.

    Returns:
      uint8 `[n, H, W, 3]`; `images` themselves if nobody is corrupted.

    Raises:
      SemanticFLError: if the partition has another number of clients.
    """
    if len(corruptions.kinds) != partition.num_clients:
        raise SemanticFLError(
            f"corruptions are of {len(corruptions.kinds)} clients, the partition has "
            f"{partition.num_clients}"
        )
    if not corruptions.severities.any():
        return images
    result = np.array(images)
    for client, (kind, severity) in enumerate(zip(*corruptions, strict=True)):
        indices = partition.client(client)
        for first in range(0, len(indices), _BATCH):
            batch = indices[first : first + _BATCH]
            result[batch] = corrupt(images[batch], kind, float(severity), batch, seed)
    return result


def corrupt(
    images: np.ndarray, kind: str | None, severity: float, indices: np.ndarray, seed: int
) -> np.ndarray:
    """Corrupt images uint8 `[b, H, W, 3]` of these indices `[b]`, all alike.

    Raises:
      SemanticFLError: for an unknown kind or a severity out of 0..1.
    """
    if not 0 <= severity <= 1:
        raise SemanticFLError(f"severity must be from 0 to 1, got {severity}")
    if kind is None or severity == 0:
        return images
    if kind not in KINDS:
        raise SemanticFLError(f"corruption must be one of {', '.join(KINDS)}, got {kind!r}")
    values = KINDS[kind](images.astype(np.float32), severity, indices, seed)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _noise(images, severity, indices, seed):
    shape = images.shape[1:]
    for image, index in zip(images, indices.tolist(), strict=True):
        rng = host_generator(seed, HostStream.CORRUPTION_NOISE, index)
        image += np.float32(64 * severity) * rng.standard_normal(shape, np.float32)
    return images


def _blur(images, severity, indices, seed):
    from scipy.ndimage import gaussian_filter1d

    def matrix(side):
        return gaussian_filter1d(np.eye(side), severity * side / 16, axis=0, mode="nearest")

    return _along_both_sides(images, matrix)


def _low_resolution(images, severity, indices, seed):
    def matrix(side):
        small = max(round((1 - 0.75 * severity) * side), 1)
        # Share of each fine pixel in a coarse one, from how far their intervals overlap.
        coarse = np.arange(small)[:, None] * (side / small)
        fine = np.arange(side)[None]
        overlap = np.minimum(coarse + side / small, fine + 1) - np.maximum(coarse, fine)
        shrink = np.maximum(overlap, 0) * (small / side)
        # Centres of fine pixels in units of coarse ones; np.interp repeats the outermost values.
        centres = (np.arange(side) + 0.5) * (small / side) - 0.5
        units = np.eye(small)
        grow = np.stack([np.interp(centres, np.arange(small), unit) for unit in units], axis=1)
        return grow @ shrink

    return _along_both_sides(images, matrix)


def _contrast(images, severity, indices, seed):
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + np.float32(1 - 0.85 * severity) * (images - mean)


def _along_both_sides(images: np.ndarray, matrix: Callable[[int], np.ndarray]) -> np.ndarray:
    """Multiply columns and rows of pixels by a matrix made for their length."""
    batch, height, width, channels = images.shape
    vertical, horizontal = (matrix(side).astype(np.float32) for side in (height, width))
    images = vertical @ images.reshape(batch, height, width * channels)
    return horizontal @ images.reshape(batch, height, width, channels)


#: Kinds by name; each `(images float32 [b, H, W, 3], severity, indices [b], seed) -> float`, of
#: the same shape; it may change its argument.
KINDS: dict[str, Callable[..., np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "low_resolution": _low_resolution,
    "contrast": _contrast,
}


def examples(
    before: np.ndarray,
    after: np.ndarray,
    partition: Partition,
    corruptions: Corruptions,
    max_clients: int = 12,
    max_images: int = 6,
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return some corrupted clients with their first images, to look at.

    Args:
      before: uint8 `[n, H, W, 3]`.
      after: what `corrupt_clients` made of them.
      partition: of these images.
      corruptions: of its clients.
      max_clients: clients at most, of every kind about as many, from mild to severe.
      max_images: images a client at most.

    Returns:
      For each client, a label and its images before and after, uint8 `[b, H, W, 3]` each.
    """
    present = {kind for kind in corruptions.kinds if kind is not None}
    chosen: list[int] = []
    for kind in (kind for kind in KINDS if kind in present):
        clients = [c for c, k in enumerate(corruptions.kinds) if k == kind and partition.sizes[c]]
        clients.sort(key=lambda client: corruptions.severities[client])
        count = min(max(max_clients // len(present), 1), len(clients))
        places = np.linspace(0, len(clients) - 1, count).round().astype(int)
        chosen += [clients[place] for place in places]
    rows = []
    for client in chosen:
        indices = partition.client(client)[:max_images]
        label = f"client {client}: {str(corruptions.kinds[client]).replace('_', ' ')}"
        label += f", severity {corruptions.severities[client]:.2f}"
        rows.append((label, before[indices], after[indices]))
    return rows
