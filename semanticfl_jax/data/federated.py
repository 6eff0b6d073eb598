"""The federated data set on device: images, an index table per client, masked batches.

Either all images lie on every device, or those of some clients at a time (`host_images`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources.inputs import KEPT
from semanticfl_jax.devices.mesh import CLIENTS
from semanticfl_jax.devices.placement import put
from semanticfl_jax.errors import SemanticFLError


@flax.struct.dataclass
class FederatedDataset:
    """Images of all N clients, or of some, and which client owns which; a pytree.

    Attributes:
      images: uint8 `[n, H * W * 3]`; inputs that are no images are float32 or int32 `[n, d]`, of d
        numbers each. With four dimensions, a TPU's program would first copy all of them into
        another layout, four times as large: 614 MB of CIFAR-10's 154. With `cohort`, those of these
        clients alone, `[devices * capacity, H * W * 3]`, each device's on it. None where none are
        on the devices.
      labels: int32 `[n]`; for tasks without classes uint8 or float32 `[n, K]`, or int32 `[n, ...]`.
      indices: int32 `[total]`; client i owns `indices[offsets[i] : offsets[i] + sizes[i]]`.
      offsets: int32 `[N]`.
      sizes: int32 `[N]`.
      label_counts: int32 `[N, K]`, samples of each class at each client; zeros `[N, 1]` where
        images have no class.
      max_size: samples of the largest client; static.
      image_shape: H, W, 3, or the shape of an input that is no image; static.
      cohort: int32 `[devices * places]`, the clients whose images are there, each device's on it;
        -1 in empty places. None: `images` are all of them.
      starts: int32 `[devices * places]`, where each of their images begin, among its device's.
      image_dtype: of the images, here or not; static.
    """

    images: jax.Array | None
    labels: jax.Array
    indices: jax.Array
    offsets: jax.Array
    sizes: jax.Array
    label_counts: jax.Array
    max_size: int = flax.struct.field(pytree_node=False)
    image_shape: tuple[int, ...] = flax.struct.field(pytree_node=False)
    cohort: jax.Array | None = None
    starts: jax.Array | None = None
    image_dtype: np.dtype = flax.struct.field(pytree_node=False, default=np.dtype(np.uint8))

    def specs(self) -> FederatedDataset:
        """Return how the arrays are spread over a mesh, for `jax.shard_map`."""
        specs = jax.tree.map(lambda _: PartitionSpec(), self)
        if self.cohort is None:
            return specs
        spread = PartitionSpec(CLIENTS)
        return specs.replace(images=spread, cohort=spread, starts=spread)


class Batch(NamedTuple):
    """A batch of fixed size B; rows where `mask` is False are padding.

    Attributes:
      images: uint8 `[B, H, W, 3]`; inputs that are no images, float32 or int32 `[B, ...]`.
      labels: int32 `[B]`, or as in `FederatedDataset`.
      mask: bool `[B]`.
      samples: int32 `[B]`, each row's place in the training set; None for test images.
    """

    images: jax.Array
    labels: jax.Array
    mask: jax.Array
    samples: jax.Array | None = None


def federate(
    dataset_images: np.ndarray,
    labels: np.ndarray,
    partition: Partition,
    num_classes: int,
    sharding: jax.sharding.Sharding | None = None,
    with_images: bool = True,
) -> FederatedDataset:
    """Put images and index table on device.

    Args:
      dataset_images: uint8 `[n, H, W, 3]`, or float32 or int32 `[n, ...]`, possibly memory-mapped.
      labels: integers `[n]` in 0..num_classes-1; or `[n, ...]` of any type, for tasks without
        classes.
      partition: of these n samples, or of some of them.
      num_classes: number of classes K.
      sharding: where the arrays live, usually a replicated `NamedSharding`; None: JAX's default.
      with_images: whether the images go there, too; else they come and go (`HostImages`).

    Raises:
      SemanticFLError: if the arrays do not fit each other, or for images of another type.
    """
    n = len(dataset_images)
    axes, images = dataset_images.ndim, dataset_images.dtype == np.uint8
    if dataset_images.dtype not in KEPT or (axes != 4 if images else axes < 2):
        raise SemanticFLError(
            "images must be uint8 [n, H, W, 3], or float32 or int32 [n, ...], got "
            f"{dataset_images.dtype} {dataset_images.shape}"
        )
    labels = np.asarray(labels)
    if labels.ndim == 0 or len(labels) != n:
        raise SemanticFLError(f"labels must be one an image, [{n}], got {np.shape(labels)}")
    if len(partition.indices) and partition.indices.max() >= n:
        raise SemanticFLError(f"partition indices must be below the number of images {n}")
    sizes, counts = partition.sizes, np.zeros((partition.num_clients, 1))
    if labels.ndim == 1:
        labels = labels.astype(np.int32)
        counts = partition.label_counts(labels, num_classes)
    arrays = FederatedDataset(
        images=dataset_images.reshape(n, -1) if with_images else None,
        labels=labels,
        indices=partition.indices,
        offsets=partition.offsets[:-1].astype(np.int32),
        sizes=sizes.astype(np.int32),
        label_counts=counts.astype(np.int32),
        max_size=int(sizes.max()),
        image_shape=dataset_images.shape[1:],
        image_dtype=dataset_images.dtype,
    )
    return put(arrays, sharding)


def epoch_order(key: jax.Array, size: jax.Array | int, max_size: int) -> jax.Array:
    """Draw the random order of one client's samples for one epoch.

    Sorting random keys gives every client the same shape under vmap. A key depends on its position
    alone (`jax_threefry_partitionable`, JAX's default), so that the order does not depend on
    max_size, which other clients determine.

    Args:
      key: a PRNG key.
      size: samples of the client, int32 scalar, at most max_size; may be traced.
      max_size: length of the result, static.

    Returns:
      int32 `[max_size]`: a permutation of 0..size-1, then size..max_size-1 in order.
    """
    positions = jnp.arange(max_size, dtype=jnp.int32)
    # One bit is given up so that no valid key equals the one of the padding.
    keys = jax.random.bits(key, (max_size,), jnp.uint32) >> 1
    keys = jnp.where(positions < size, keys, jnp.uint32(0xFFFFFFFF))
    return jnp.argsort(keys, stable=True).astype(jnp.int32)


def gather_batch(
    data: FederatedDataset,
    client_id: jax.Array | int,
    order: jax.Array,
    step: jax.Array | int,
    batch_size: int,
) -> Batch:
    """Return batch number `step` of a client's epoch; the last one is padded and masked.

    Padding repeats the first sample of the order. A step beyond the epoch is all padding.

    Args:
      data: the federated data set, with the client's images.
      client_id: int32 scalar in 0..N-1.
      order: int32 `[max_size]` from `epoch_order`.
      step: int32 scalar, from 0.
      batch_size: rows B of the batch, static.
    """
    positions = step * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    mask = positions < data.sizes[client_id]
    local = jnp.take(order, jnp.where(mask, positions, 0), mode="clip")
    samples = jnp.take(data.indices, data.offsets[client_id] + local, mode="clip")
    rows = samples
    if data.cohort is not None and data.starts is not None:
        rows = data.starts[jnp.argmax(data.cohort == client_id)] + local
    images = jnp.take(data.images, rows, axis=0, mode="clip")
    images = images.reshape(-1, *data.image_shape)
    labels = jnp.take(data.labels, samples, axis=0, mode="clip")
    return Batch(images, labels, mask, samples)


def pad_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, multiple_of: int = 1
) -> Batch:
    """Cut a whole split into equal batches for evaluation; NumPy, on the host.

    Args:
      images: `[n, ...]`, of any type and shape.
      labels: integers `[n]`; or `[n, ...]` of any type.
      batch_size: rows B of a batch.
      multiple_of: the number of batches is rounded up to a multiple of this, usually the devices.

    Returns:
      A batch with one more axis in front, `[num_batches, B, ...]`; padding is zero and masked.
    """
    labels = np.asarray(labels)
    n = len(labels)
    if len(images) != n or not n:
        raise SemanticFLError(
            f"images and labels must be as many and not none, got {len(images)}, {n}"
        )
    if batch_size < 1 or multiple_of < 1:
        raise SemanticFLError(
            f"batch_size and multiple_of must be at least 1, got {batch_size}, {multiple_of}"
        )
    batches = math.ceil(n / (batch_size * multiple_of)) * multiple_of

    def stack(values, dtype):
        padded = np.zeros((batches * batch_size, *values.shape[1:]), dtype)
        padded[:n] = values
        return padded.reshape(batches, batch_size, *values.shape[1:])

    return Batch(
        stack(images, images.dtype),
        stack(labels, np.int32 if labels.ndim == 1 else labels.dtype),
        stack(np.ones(n, bool), bool),
    )
