"""A data set as its clients hold it: the public split, the partition, and what sets clients apart.

public split -> limit -> long tail -> scheme, or all of it from a file -> partition -> corrupted
images -> the clients' own test images
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semanticfl_jax import files
from semanticfl_jax.config import ConfigError, ExperimentConfig, to_dict
from semanticfl_jax.data.client_test import hold_out
from semanticfl_jax.data.corruptions import Corruptions, corrupt_clients, draw_corruptions, examples
from semanticfl_jax.data.modality import draw_modalities
from semanticfl_jax.data.partition import (
    Partition,
    draw_balanced,
    from_lists,
    make_partition,
    require_fit,
    split_public,
)
from semanticfl_jax.data.partition.statistics import PartitionStatistics, partition_statistics
from semanticfl_jax.data.requirements import (
    check_goes_with_sharing,
    check_goes_without_classes,
    check_inputs,
    check_labels,
    check_public,
)
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError
from semanticfl_jax.reporting.plots.corruptions import plot_gallery
from semanticfl_jax.reporting.plots.partition import plot_clients, plot_partition

PARTITION, CLIENTS, GALLERY = "partition.npz", "clients.npz", "corruptions.png"


@dataclasses.dataclass(frozen=True, eq=False)
class Federation:
    """A data set in the hands of server and clients.

    Attributes:
      clean: the data set as it was read.
      dataset: with the clients' images corrupted; `clean` itself without `feature_skew`.
      public: int64 [p], the training samples that the server holds.
      partition: the training samples that each client trains on.
      corruptions: who is corrupted, and how.
      holders: which clients hold which kind of anchors, name -> bool [N]; empty: all hold all.
      client_test: those that each client keeps for testing; None without `client_test.share`.
      dealt: both together, as they were dealt; None: `partition` is all.
      given: whether the partition was given, in place of the configuration's.
    """

    clean: ImageDataset
    dataset: ImageDataset
    public: np.ndarray
    partition: Partition
    corruptions: Corruptions
    holders: Mapping[str, np.ndarray]
    client_test: Partition | None = None
    dealt: Partition | None = None
    given: bool = False

    @property
    def whole(self) -> Partition:
        """What each client was dealt, its own test images with it."""
        return self.partition if self.dealt is None else self.dealt

    def label_counts(self) -> np.ndarray:
        """Return the samples of each class at each client, int64 [N, K]; zeros [N, 1] without."""
        if not self.dataset.has_classes:
            return np.zeros((self.partition.num_clients, 1), np.int64)
        return self.partition.label_counts(self.dataset.train_labels, self.dataset.num_classes)

    def summary(self) -> dict[str, Any]:
        """Return the figures of the partition for JSON."""
        return statistics_of(self.dataset, self.partition)[1]

    def save(self, directory: Path, config: ExperimentConfig) -> None:
        """Write partition.npz and, where clients differ in more than samples, clients.npz.

        `clients.npz`, without pickles, holds arrays [num_clients]: `corruption` (str, empty for
        none) and `severity` float32; `holds_text` and `holds_visual` bool. `test_indices` and
        `test_offsets` [num_clients + 1] are the images that clients keep for testing;
        partition.npz has all of a client's. Nothing is written of what does not occur.

        The metadata of partition.npz have `values` where a column forms the clients: for each
        client the list of its values.
        """
        save(directory / PARTITION, self.public, self.whole, self.dataset, config)
        arrays = {}
        if self.client_test is not None:
            arrays |= {
                "test_indices": self.client_test.indices,
                "test_offsets": self.client_test.offsets,
            }
        if config.feature_skew.corruptions:
            kinds, severities = self.corruptions
            names = np.array([kind or "" for kind in kinds])
            arrays |= {"corruption": names, "severity": severities}
        arrays |= {f"holds_{name}": who for name, who in self.holders.items()}
        if arrays:
            files.write(directory / CLIENTS, lambda file: np.savez(file, **arrays))

    def draw(self, plots: Path) -> None:
        """Draw the partition and, of corrupted clients, some images into the folder `plots`."""
        draw_partition(self.dataset, self.partition, plots)
        before, after = self.clean.train_images, self.dataset.train_images
        rows = examples(before, after, self.partition, self.corruptions)
        if rows:
            plot_gallery(rows, plots / GALLERY)


def make_federation(
    dataset: ImageDataset,
    config: ExperimentConfig,
    partition: Partition | Sequence[np.ndarray] | None = None,
) -> Federation:
    """Give a data set to server and clients.

    Args:
      dataset: as it was read.
      config: partition, public split, corruptions and modalities.
      partition: who holds which training samples, in place of `config.partition`: one array of
        indices a client. The public split is then drawn of the samples that nobody holds, and is
        empty where the run needs none.

    Raises:
      SemanticFLError: for a partition that cannot be made or does not fit, labels that are not what
        the task wants, or inputs that are no images where these are needed.
    """
    check_labels(dataset, config)
    check_inputs(dataset, config)
    given = partition is not None
    if partition is None:
        public, partition = deal(dataset, config)
    else:
        if config.train_limit:
            raise ConfigError(
                f"train_limit must be 0 with a partition that is given, got {config.train_limit}"
            )
        count = len(dataset.train_labels)
        if isinstance(partition, Partition):
            require_fit(partition, count, config.num_clients)
        else:
            partition = from_lists(partition, count, config.num_clients)
        public = _public_of_the_rest(dataset, partition, config)
    if partition.overlapping:
        check_goes_with_sharing(config)
    corruptions = draw_corruptions(config.feature_skew, config.num_clients, config.seed)
    images = corrupt_clients(dataset.train_images, partition, corruptions, config.seed)
    skewed = dataclasses.replace(dataset, train_images=images)
    holders = draw_modalities(config.modality, config.num_clients, config.seed)
    federation = Federation(dataset, skewed, public, partition, corruptions, holders, given=given)
    if config.client_test.share == 0:
        return federation
    labels = dataset.train_labels
    classes = labels if dataset.has_classes else np.zeros(len(labels), np.int32)
    own, tested = hold_out(partition, classes, config.client_test.share, config.seed)
    return dataclasses.replace(federation, partition=own, client_test=tested, dealt=partition)


def _public_of_the_rest(
    dataset: ImageDataset, partition: Partition, config: ExperimentConfig
) -> np.ndarray:
    if not config.uses_public:
        return np.zeros(0, np.int64)
    rest = np.setdiff1d(np.arange(len(dataset.train_labels)), partition.indices)
    labels = dataset.train_labels[rest]
    fewest = np.bincount(labels, minlength=dataset.num_classes).min()
    if fewest < config.public_per_class:
        raise SemanticFLError(
            f"public_per_class must be at most {fewest}, the samples of a class that no client of "
            f"the given partition holds, got {config.public_per_class}"
        )
    return rest[split_public(labels, config.public_per_class, config.seed)[0]]


def deal(dataset: ImageDataset, config: ExperimentConfig) -> tuple[np.ndarray, Partition]:
    """Return the server's public indices, int64 `[p]`, and the partition of other samples.

    Both come from `partition.file` if there is one, whatever the scheme and the seed.

    Raises:
      SemanticFLError: for a partition that cannot be made, or a file of another one.
    """
    if config.partition.file is not None:
        return _read(config.partition.file, dataset, config)
    labels, per_class = dataset.train_labels, config.public_per_class
    if not dataset.has_classes:
        check_goes_without_classes(config)
        labels, per_class = np.zeros(len(labels), np.int32), 0
    check_public(dataset, per_class)
    public, private = split_public(labels, per_class, config.seed)
    if config.train_limit:
        private = private[draw_balanced(labels[private], config.train_limit, config.seed)]
    column = config.partition.column
    if column is not None and column not in dataset.columns:
        known = ", ".join(dataset.columns) or "none"
        raise SemanticFLError(
            f"partition.column must be a column of {dataset.name} ({known}), got {column!r}"
        )
    if config.num_clients > len(private):
        took = f", after public_per_class={per_class} took {len(public)}" if len(public) else ""
        raise SemanticFLError(
            f"num_clients must be at most {len(private)}, the training images of {dataset.name} "
            f"that are left for clients ({len(labels)}{took}), got {config.num_clients}"
        )
    local = make_partition(
        config.partition,
        labels[private],
        config.num_clients,
        seed=config.seed,
        column=None if column is None else dataset.columns[column][private],
    )
    return public, Partition(private[local.indices], local.offsets)


def save(
    path: Path,
    public: np.ndarray,
    partition: Partition,
    dataset: ImageDataset,
    config: ExperimentConfig,
) -> None:
    """Write what `deal` returned, with all that `partition.file` needs to give it back."""
    values = client_values(dataset, partition, config)
    partition.save(
        path,
        dataset=dataset.name,
        num_samples=len(dataset.train_labels),
        labels_sha256=_labels_sha256(dataset),
        public_per_class=config.public_per_class,
        train_limit=config.train_limit,
        public=public.tolist(),
        seed=config.seed,
        partition=to_dict(config.partition),
        **({} if values is None else {"values": values}),
    )


def client_values(
    dataset: ImageDataset, partition: Partition, config: ExperimentConfig
) -> list[list[Any]] | None:
    """Return the values of `partition.column` that each client has, sorted; None without one."""
    column = config.partition.column
    if column is None or column not in dataset.columns:
        return None
    names, number = np.unique(dataset.columns[column][partition.indices], return_inverse=True)
    owner = np.repeat(np.arange(partition.num_clients), partition.sizes)
    owner, number = np.unique(np.stack([owner, number]), axis=1)
    return [
        each.tolist()
        for each in np.split(names[number], np.searchsorted(owner, range(1, partition.num_clients)))
    ]


def describe_merged(federation: Federation, config: ExperimentConfig) -> str | None:
    """Return a line where the seed gave clients several values of the column that forms them."""
    if federation.given or config.partition.file is not None:
        return None
    values = client_values(federation.dataset, federation.whole, config)
    if values is None or max(map(len, values)) < 2:
        return None
    counts = [len(each) for each in values]
    every = f"{min(counts)} or {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
    return (
        f"{len(values)} clients share the {sum(counts)} values of column "
        f"{config.partition.column!r}, {every} each, drawn by the seed; num_clients={sum(counts)} "
        "makes every value a client"
    )


def _labels_sha256(dataset: ImageDataset) -> str:
    """Return a hash of the training labels in their order, which differs between forms of a set."""
    return hashlib.sha256(np.ascontiguousarray(dataset.train_labels)).hexdigest()


def _read(
    path: str, dataset: ImageDataset, config: ExperimentConfig
) -> tuple[np.ndarray, Partition]:
    partition, made = Partition.load_with_metadata(path)
    here = {
        "dataset": dataset.name,
        "num_samples": len(dataset.train_labels),
        "public_per_class": config.public_per_class,
        "num_clients": config.num_clients,
    }
    there = {**made, "num_clients": partition.num_clients}
    if config.train_limit or there.get("train_limit"):  # files of earlier versions have none
        here["train_limit"] = config.train_limit
    differences = [
        f"{name} was {there.get(name)!r}, is {value!r}"
        for name, value in here.items()
        if there.get(name) != value
    ]
    if differences:
        raise SemanticFLError(
            f"partition.file {path} was made for another setting: {'; '.join(differences)}"
        )
    # Files of earlier versions have no hash.
    if "labels_sha256" in made and made["labels_sha256"] != _labels_sha256(dataset):
        raise SemanticFLError(
            f"partition.file {path} was made for other training labels, or another order of them: "
            "archives, TFDS and parquet files of a data set differ in order; use the form that it "
            "was made with"
        )
    public = np.asarray(made.get("public", []), np.int64)
    if config.uses_public and config.public_per_class and not len(public):
        raise SemanticFLError(
            f"partition.file {path} leaves the server no public images, of which this run needs "
            f"public_per_class={config.public_per_class}: it is that of a run which needed none"
        )
    # One use of each sample at most, by the server or by a client, is what a partition checks too.
    used = np.concatenate([public, partition.indices])
    if used.min() < 0 or used.max() >= len(dataset.train_labels):
        raise SemanticFLError(
            f"partition.file {path} must have indices from 0 to {len(dataset.train_labels) - 1}, "
            f"has {used.min()} to {used.max()}"
        )
    if np.bincount(used).max() > 1:
        raise SemanticFLError(f"partition.file {path} gives the server samples that clients hold")
    if partition.sizes.min() == 0:
        empty = int(partition.sizes.argmin())
        raise SemanticFLError(f"partition.file {path} leaves client {empty} without samples")
    return public, partition


def draw_partition(dataset: ImageDataset, partition: Partition, plots: Path) -> None:
    """Draw a partition into the folder `plots`."""
    statistics, summary = statistics_of(dataset, partition)
    if not dataset.has_classes:
        sizes = {f"Images (Gini {summary['gini']:.2f})": statistics.sizes}
        plot_clients(sizes, plots / "partition.png")
        return
    counts = partition.label_counts(dataset.train_labels, dataset.num_classes)
    plot_partition(counts, dataset.class_names, plots / "partition.png", headline(summary))
    plot_clients(
        {
            f"Images (Gini {summary['gini']:.2f})": statistics.sizes,
            f"Effective classes, of {summary['classes']}": statistics.effective_classes,
            "Total variation to all labels": statistics.total_variation,
        },
        plots / "partition_clients.png",
    )


def statistics_of(
    dataset: ImageDataset, partition: Partition
) -> tuple[PartitionStatistics, dict[str, Any]]:
    """Return the figures of a partition, and for JSON; of sizes alone where there is no class."""
    if dataset.has_classes:
        counts = partition.label_counts(dataset.train_labels, dataset.num_classes)
        statistics = partition_statistics(counts)
        return statistics, statistics.summary()
    statistics = partition_statistics(partition.sizes[:, None])  # as if of one class
    summary = statistics.summary()
    kept = ("clients", "samples", "sizes", "gini")
    return statistics, {name: summary[name] for name in kept}


def headline(summary: dict[str, Any]) -> str:
    """Return the most telling figures of a partition in one line."""
    classes, distance = summary["effective_classes"], summary["total_variation"]
    return (
        f"effective classes {classes['mean']:.2f} of {summary['classes']} "
        f"({classes['min']:.2f} to {classes['max']:.2f}), total variation {distance['mean']:.2f}, "
        f"Gini of sizes {summary['gini']:.2f}"
    )
