"""What clients compute of their own images once, at their first contact, and keep.

Such rows depend on the images and on what the server sends once, both fixed, and on nothing of the
run. So they are computed for all clients before round 1, on the devices, and lie beside the images:
the same numbers as if each client computed its own when it is first asked, without a branch in
every round. A resumed run computes them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from semanticfl_jax.algorithms.base import Algorithm, Contact
from semanticfl_jax.algorithms.parts import path_name
from semanticfl_jax.data.federated import FederatedDataset
from semanticfl_jax.devices.mesh import CLIENTS, on_each_device, replicated, split
from semanticfl_jax.devices.placement import put
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.types import PyTree

# Images at once on each device. On any number of devices a device computes blocks of this size, so
# that the numbers do not depend on it.
_BLOCK = 256


def with_own_rows(
    algorithm: Algorithm,
    sent: Mapping[str, PyTree],
    data: FederatedDataset,
    mesh: Mesh,
    kept: np.ndarray | None = None,
) -> dict[str, PyTree]:
    """Return `sent` with the rows that clients compute themselves among those of single images.

    Args:
      algorithm: its terms say what is computed (`LossTerm.contact`).
      sent: `Algorithm.sent_once`, replicated over the mesh.
      data: the clients' images; images of no client get rows of zeros.
      mesh: the devices, each of which computes a share.
      kept: the images, [n, ...], if they stay in host memory; they come block by block.
    """
    samples = np.unique(np.asarray(data.indices))
    return _completed(
        algorithm,
        sent,
        lambda contact, shared: _rows(contact, shared, data, samples, mesh, kept),
    )


def with_row_shapes(
    algorithm: Algorithm, sent: Mapping[str, PyTree], data: FederatedDataset
) -> dict[str, PyTree]:
    """Return `sent` with the shapes of what `with_own_rows` would compute.

    Args:
      algorithm: its terms say what is computed.
      sent: `Algorithm.sent_once`, or its shapes.
      data: the clients' images, or their shapes.
    """
    return _completed(algorithm, sent, lambda contact, shared: row_shapes(contact, shared, data))


def _completed(
    algorithm: Algorithm,
    sent: Mapping[str, PyTree],
    rows: Callable[[Contact, PyTree], Mapping[str, Any]],
) -> dict[str, PyTree]:
    """Return `sent` with `rows(contact, shared)` among the single images' of each such term."""
    completed = dict(sent)
    for term in algorithm.terms:
        if term.contact is not None:
            shared, per_sample, holders = sent[term.name]
            own = rows(term.contact, shared)
            completed[term.name] = (shared, {**dict(per_sample or {}), **own}, holders)
    return completed


def check_rows(algorithm: Algorithm, images: int) -> None:
    """Raise `SemanticFLError` for rows of a term that are fewer or more than training images.

    For a row that is not there the last one would be taken, and nothing would say so.
    """
    for term in algorithm.terms:
        for path, leaf in jax.tree_util.tree_leaves_with_path(term.per_sample):
            if np.shape(leaf)[:1] != (images,):
                where = "/".join(filter(None, ("per_sample", path_name(path))))
                raise SemanticFLError(
                    f"{where} of the term {term.name} must have a row for each of the {images} "
                    f"training images, got {list(np.shape(leaf))}"
                )


def row_shapes(
    contact: Contact, shared: PyTree, data: FederatedDataset
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the rows of all n images, {name: [n, ...]}.

    Args:
      contact: what is computed.
      shared: `LossTerm.shared`, or its shapes.
      data: the clients' images, or their shapes.
    """
    image = jax.ShapeDtypeStruct((1, *data.image_shape), data.image_dtype)
    forms = jax.eval_shape(contact.rows, shared, image)
    total = data.labels.shape[0]
    return {
        name: jax.ShapeDtypeStruct((total, *form.shape[1:]), form.dtype)
        for name, form in forms.items()
    }


def block_size(count: int) -> int:
    """Return the images at once on each device, of `count` that clients have in all."""
    return min(_BLOCK, count)


def _rows(
    contact: Contact,
    shared: PyTree,
    data: FederatedDataset,
    samples: np.ndarray,
    mesh: Mesh,
    kept: np.ndarray | None,
) -> Mapping[str, jax.Array]:
    """Return the rows of all images, {name: [n, ...]}, replicated."""
    count = len(samples)
    of = samples if contact.order is None else samples[np.asarray(contact.order(count))]
    block = block_size(count)
    together = block * mesh.devices.size
    forms = row_shapes(contact, shared, data)
    zeros = {name: np.zeros(form.shape, form.dtype) for name, form in forms.items()}
    rows = put(zeros, replicated(mesh))
    compute = make_block(contact, mesh, data.image_shape, kept is not None)
    for start in range(0, count, together):
        # The last block is filled up with repetitions, which write the same numbers again.
        chosen = np.arange(start, start + together).clip(max=count - 1)
        places, sources = samples[chosen].astype(np.int32), of[chosen].astype(np.int32)
        images = data.images
        if kept is not None:
            images = put(kept[sources].reshape(len(sources), -1), split(mesh))
            sources = np.tile(np.arange(block, dtype=np.int32), mesh.devices.size)
        places, sources = put((places, sources), replicated(mesh))
        # One block at a time: images from host memory would pile up on the devices.
        rows = jax.block_until_ready(compute(rows, shared, images, places, sources))
    return rows


def make_block(
    contact: Contact, mesh: Mesh, image_shape: tuple[int, ...], spread_images: bool
) -> jax.stages.Wrapped:
    """Return (rows, shared, images, places, sources) -> rows with a block more, jitted.

    `rows` are donated. `places` and `sources` are int32 [devices * block]: whose rows are
    computed, and of which images. These are places among all images, [n, d], or, if images are
    spread, [devices * block, d], among those of each device.
    """
    everywhere, spread = PartitionSpec(), PartitionSpec(CLIENTS)

    def of_device(shared, images, sources):
        pictures = jnp.take(images, sources, axis=0, mode="clip")
        return contact.rows(shared, pictures.reshape(-1, *image_shape))

    sharded = on_each_device(
        of_device, mesh, (everywhere, spread if spread_images else everywhere, spread), spread
    )

    @partial(jax.jit, donate_argnums=0, out_shardings=replicated(mesh))
    def compute(rows, shared, images, places, sources):
        found = sharded(shared, images, sources)
        return {name: rows[name].at[places].set(found[name]) for name in rows}

    return compute
