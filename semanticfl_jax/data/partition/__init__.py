"""Partitions: which client owns which training samples. NumPy only, seeded."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.array_files import DAMAGE, read_npz
from semanticfl_jax.config.heterogeneity import PartitionConfig
from semanticfl_jax.contexts import PartitionContext
from semanticfl_jax.data.partition.grouping import by_class
from semanticfl_jax.data.partition.long_tail import long_tail
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.randomness import HostStream, host_generator


@dataclasses.dataclass(frozen=True, eq=False)
class Partition:
    """Sample indices of every client in compressed-row form.

    Attributes:
      indices: int32 `[total]`, client after client, each index at most once unless `overlapping`.
      offsets: int64 `[num_clients + 1]`; client i owns `indices[offsets[i]:offsets[i + 1]]`.
      overlapping: clients may hold the same samples: to simulate more clients than the data set can
        fill. Runs from a configuration never do.
    """

    indices: np.ndarray
    offsets: np.ndarray
    overlapping: bool = False

    def __post_init__(self):
        for name in ("indices", "offsets"):
            _require_whole_numbers(name, getattr(self, name))
        object.__setattr__(self, "indices", np.asarray(self.indices, np.int32))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, np.int64))
        rows = self.offsets.ndim == self.indices.ndim == 1 and len(self.offsets) >= 2
        if not rows or self.offsets[0] != 0 or self.offsets[-1] != len(self.indices):
            raise SemanticFLError(
                "offsets must go from 0 to the number of indices, one step a client"
            )
        if (np.diff(self.offsets) < 0).any():
            raise SemanticFLError("offsets must not fall")
        ordered = np.sort(self.indices)
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        if not self.overlapping and len(again):
            places = np.flatnonzero(self.indices == again[0])
            holders = np.searchsorted(self.offsets, places, side="right") - 1
            raise SemanticFLError(
                f"indices must be used at most once, and image {again[0]} is client "
                f"{holders[0]}'s and client {holders[1]}'s; Partition(..., overlapping=True) lets "
                "clients share images"
            )

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """Samples of each client, int64 `[num_clients]`."""
        return np.diff(self.offsets)

    def client(self, i: int) -> np.ndarray:
        """Sample indices of client i, int32 `[sizes[i]]`."""
        if not 0 <= i < self.num_clients:
            raise SemanticFLError(f"client must be from 0 to {self.num_clients - 1}, got {i}")
        return self.indices[self.offsets[i] : self.offsets[i + 1]]

    def label_counts(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the samples of each class at each client, int64 `[num_clients, num_classes]`.

        Args:
          labels: integers `[n]` in 0..num_classes-1, of all samples that `indices` point into.
          num_classes: number of classes K.
        """
        dealt = np.asarray(labels)[self.indices]
        if ((dealt < 0) | (dealt >= num_classes)).any():
            raise SemanticFLError(f"labels must be from 0 to num_classes - 1 = {num_classes - 1}")
        owner = np.repeat(np.arange(self.num_clients), self.sizes)
        cells = np.bincount(owner * num_classes + dealt, minlength=self.num_clients * num_classes)
        return cells.reshape(self.num_clients, num_classes)

    def save(self, path: str | os.PathLike, **metadata: Any) -> None:
        """Write the attributes and `metadata` (as JSON) to an `.npz` without pickles."""
        text = np.array(json.dumps(metadata, sort_keys=True))
        arrays = {"indices": self.indices, "offsets": self.offsets, "metadata": text}
        if self.overlapping:
            arrays["overlapping"] = np.array(True)
        files.write(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Partition:
        """Read what `save` wrote.

        Raises:
          SemanticFLError: if the file does not hold a partition.
        """
        return cls.load_with_metadata(path)[0]

    @classmethod
    def load_with_metadata(cls, path: str | os.PathLike) -> tuple[Partition, dict[str, Any]]:
        """Return the partition that `save` wrote, and the metadata that it was given."""
        try:
            arrays = read_npz(path)
            overlapping = bool(arrays.get("overlapping", False))
            partition = cls(arrays["indices"], arrays["offsets"], overlapping)
            return partition, dict(json.loads(str(arrays["metadata"])))
        except DAMAGE as error:
            raise SemanticFLError(f"{path} does not hold a partition: {error}") from error


def _require_whole_numbers(name: str, given: np.ndarray) -> None:
    """Raise `SemanticFLError` for what would be cut or wrap around as an index of 32 bits."""
    given = np.asarray(given)
    whole = np.issubdtype(given.dtype, np.integer) or not given.size  # [] is of floats
    if not whole or (given.size and not 0 <= given.min() <= given.max() < 2**31):
        found = f", from {given.min()} to {given.max()}" if whole else ""
        raise SemanticFLError(
            f"{name} must be whole numbers, at least 0 and below 2^31, got {given.dtype}{found}"
        )


def make_partition(
    config: PartitionConfig,
    labels: np.ndarray,
    num_clients: int,
    *,
    seed: int,
    column: np.ndarray | None = None,
) -> Partition:
    """Deal samples to clients; the same arguments always give the same partition.

    Args:
      config: the scheme and its settings. `file` is not read here.
      labels: integers `[n]`.
      num_clients: from 1 to the number of samples.
      seed: at least 0.
      column: `[n]` of any type, for the scheme `natural`: the values that clients go by.

    Returns:
      A partition that leaves no client empty. It uses every sample exactly once, or with
      `imbalance_factor` above 1 every sample that the long tail keeps.

    Raises:
      SemanticFLError: for an argument out of range, or if no split is found within a bounded number
        of draws.
    """
    labels = _checked_labels(labels)
    if not 1 <= num_clients <= len(labels):
        raise SemanticFLError(
            f"num_clients must be from 1 to the number of samples {len(labels)}, got {num_clients}"
        )
    groups = labels
    if "column" in config.entry.uses:
        if column is None or np.shape(column) != labels.shape:
            raise SemanticFLError(f"column must be one value a sample, [{len(labels)}]")
        groups = np.asarray(column)
    rng = _rng(seed)
    if config.imbalance_factor == 1:
        return _build(config, groups, num_clients, rng)

    kept = long_tail(rng, _numbered(labels), config.imbalance_factor)
    if num_clients > len(kept):
        raise SemanticFLError(
            f"num_clients must be at most {len(kept)}, the samples that imbalance_factor "
            f"{config.imbalance_factor:g} keeps of {len(labels)}; got {num_clients}"
        )
    local = _build(config, groups[kept], num_clients, rng)
    return Partition(kept[local.indices], local.offsets)


def _build(
    config: PartitionConfig, groups: np.ndarray, num_clients: int, rng: np.random.Generator
) -> Partition:
    """Return the scheme's partition of samples of these groups, checked."""
    context = PartitionContext(config, _numbered(groups), num_clients, rng)
    made = config.entry.build(config.settings, context)
    if isinstance(made, tuple) and len(made) == 2 and np.ndim(made[1]) == 1:
        indices, offsets = made
        if len(offsets) == num_clients + 1 and offsets[0] == 0:
            return Partition(indices, offsets)
    return from_lists(made, len(groups), num_clients, f"partition.scheme {config.scheme}")


def from_lists(
    clients: Sequence[np.ndarray], samples: int, num_clients: int, source: str = "partition"
) -> Partition:
    """Make a partition of one array of sample indices a client.

    Args:
      clients: integers, client by client.
      samples: n; indices are from 0 to n - 1.
      num_clients: how many arrays there must be.
      source: what the arrays come from, for messages.

    Raises:
      SemanticFLError: for another number of arrays, an empty one, or indices that are out of range
        or used twice.
    """
    _refuse_other_forms(clients, source)
    rows = [np.asarray(row) for row in clients]
    if len(rows) != num_clients:
        raise SemanticFLError(
            f"num_clients must be {len(rows)}, the arrays of indices in {source}, got {num_clients}"
        )
    for number, row in enumerate(rows):
        if row.ndim != 1 or not len(row) or not np.issubdtype(row.dtype, np.integer):
            raise SemanticFLError(
                f"{source}: client {number} must have a list of whole numbers, one at least, got "
                f"{row.dtype} {list(row.shape)}"
            )
        if row.min() < 0 or row.max() >= samples:
            raise SemanticFLError(
                f"{source}: client {number} must have indices from 0 to {samples - 1}, has "
                f"{row.min()} to {row.max()}"
            )
    return Partition(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


def _refuse_other_forms(clients: Any, source: str) -> None:
    """Raise `SemanticFLError` for a dict, or an owner for each sample."""
    if isinstance(clients, Mapping):
        raise SemanticFLError(
            f"{source} must be a list of one array of indices a client, got a dict: give "
            "list(partition.values())"
        )
    if not isinstance(clients, Iterable):
        raise SemanticFLError(
            f"{source} must be a list of one array of indices a client, got {clients!r:.80}"
        )
    if isinstance(clients, Sequence | np.ndarray) and len(clients) and np.ndim(clients[0]) == 0:
        raise SemanticFLError(
            f"{source} must be a list of one array of indices a client, got values, as of who owns "
            'each sample: give them as ImageDataset.from_arrays(..., columns={"owner": values}) '
            'with PartitionConfig("natural", column="owner"), or the list '
            "[np.flatnonzero(values == owner) for owner in np.unique(values)]"
        )


def require_fit(partition: Partition, samples: int, num_clients: int) -> None:
    """Raise `SemanticFLError` unless a partition is one of `samples` among `num_clients`.

    Some clients may be empty; they take part, and their updates have no weight.
    """
    if partition.num_clients != num_clients:
        raise SemanticFLError(
            f"num_clients must be {partition.num_clients}, as partition has, got {num_clients}"
        )
    if not len(partition.indices):
        raise SemanticFLError("partition must give one client a sample at least")
    if partition.indices.max() >= samples:
        raise SemanticFLError(
            f"partition must have indices from 0 to {samples - 1}, has {partition.indices.max()}"
        )


def split_public(labels: np.ndarray, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Carve the server's public split out of train, before clients are formed [our choice].

    Args:
      labels: integers `[n]`.
      per_class: public samples of every class that occurs, drawn at random; 0 for none.
      seed: at least 0.

    Returns:
      (public, private): sorted sample indices, int64 `[per_class * K]` and the rest, int64.

    Raises:
      SemanticFLError: if per_class is negative or a class has fewer samples.
    """
    labels = _checked_labels(labels)
    if per_class < 0:
        raise SemanticFLError(f"per_class must be at least 0, got {per_class}")
    classes, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < per_class:
        raise SemanticFLError(
            f"per_class must be at most {counts.min()}, the samples of class "
            f"{classes[counts.argmin()]}, got {per_class}"
        )
    order, counts = by_class(_rng(seed), labels)
    firsts = (np.cumsum(counts) - counts)[:, None] + np.arange(per_class)[None]
    is_public = np.zeros(len(labels), bool)
    is_public[order[firsts]] = True
    return np.flatnonzero(is_public), np.flatnonzero(~is_public)


def draw_balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw samples at random, of every class as many as of the others [our choice].

    A class with fewer than its share gives all that it has, and the others make up for it; what is
    left when the classes do not divide `count` goes to the first ones.

    Args:
      labels: integers `[n]`.
      count: how many samples, at least 1.
      seed: at least 0.

    Returns:
      Their indices, sorted, int64 `[count]`.

    Raises:
      SemanticFLError: if there are fewer.
    """
    labels = _numbered(_checked_labels(labels))
    if not 1 <= count <= len(labels):
        raise SemanticFLError(
            f"train_limit must be from 1 to {len(labels)}, the training images that are not "
            f"public, got {count}"
        )
    order, counts = by_class(host_generator(seed, HostStream.TRAIN_LIMIT), labels)
    # Each class's samples in turn: the first of every class, the second of every class, ...
    place = np.concatenate([np.arange(size) for size in counts])
    turn = np.lexsort((np.repeat(np.arange(len(counts)), counts), place))
    return np.sort(order[turn[:count]])


def _checked_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise SemanticFLError(
            f"labels must be integers [n], got {labels.dtype} {list(labels.shape)}"
        )
    return labels


def _numbered(values: np.ndarray) -> np.ndarray:
    """Return values `[n]` as 0..K-1 for the K that occur, so that none is without samples."""
    return np.unique(values, return_inverse=True)[1]


def _rng(seed: int) -> np.random.Generator:
    if seed < 0:
        raise SemanticFLError(f"seed must be at least 0, got {seed}")
    return np.random.default_rng(seed)
