"""Schemes that deal samples to clients, but for those by Dirichlet shares of labels.

Each is a builder of the registry: `(settings, context)` -> (indices, offsets) of a `Partition`, for
groups int `[n]` numbered 0..K-1 without gaps: the samples' labels, or for `natural` the values of
a column. It deals every sample once. None loops over clients, none draws without a bound.
"""

from __future__ import annotations

import numpy as np

from semanticfl_jax.contexts import PartitionContext
from semanticfl_jax.data.partition.grouping import by_class, by_owner, equal_offsets
from semanticfl_jax.errors import SemanticFLError

Rows = tuple[np.ndarray, np.ndarray]


def iid(settings: object, context: PartitionContext) -> Rows:
    """Deal shuffled samples in equal parts; sizes differ by at most 1."""
    del settings
    rng, groups, num_clients = context.rng, context.groups, context.num_clients
    return rng.permutation(len(groups)), equal_offsets(len(groups), num_clients)


def nid2(settings: object, context: PartitionContext) -> Rows:
    """Form biased clients of few classes, beside unbiased ones of all [our definition].

    The FedDifRC family has not published its NID2. Here biased client i holds as many classes as
    `classes_per_biased` says, from class `i * classes_per_biased` on, modulo K. Of each class that
    is held, `biased_share` goes to its holders, evenly. All else goes to the unbiased clients,
    evenly in every class and in total (within 1 sample). With 5 biased clients of 2 classes, share
    5/6 and 1 unbiased client this is NIID-2 of FedDisco (Ye et al., ICML 2023) on CIFAR-10.
    """
    del settings
    rng, groups, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    biased, held = config.biased_clients, config.classes_per_biased
    unbiased = num_clients - biased
    order, class_sizes = by_class(rng, groups)
    num_classes = len(class_sizes)
    if held > num_classes:
        raise SemanticFLError(
            f"classes_per_biased must be at most {num_classes} classes, got {held}"
        )
    if unbiased < 0:
        raise SemanticFLError(
            f"biased_clients must be at most num_clients {num_clients}, got {biased}"
        )

    # The holders of class 0, of class 1, ...
    classes_held = np.arange(biased * held) % num_classes
    holders = np.argsort(classes_held, kind="stable") // held
    num_holders = np.bincount(classes_held, minlength=num_classes)
    first_holder = np.cumsum(num_holders) - num_holders
    if not unbiased and (config.biased_share < 1 or not num_holders.all()):
        raise SemanticFLError(
            "nid2 without unbiased clients must have biased_share 1 and every class held by some "
            f"client: biased_clients ({biased}) must be smaller, or num_clients larger"
        )
    to_holders = np.rint(config.biased_share * class_sizes).astype(np.int64) * (num_holders > 0)

    label = groups[order]
    position = np.arange(len(order)) - (np.cumsum(class_sizes) - class_sizes)[label]
    is_biased = position < to_holders[label]
    owner = np.empty(len(order), np.int64)
    label, position = label[is_biased], position[is_biased]
    owner[is_biased] = holders[first_holder[label] + position % num_holders[label]]
    # In turn, class after class: even in each class, and in total.
    owner[~is_biased] = biased + np.arange((~is_biased).sum()) % max(unbiased, 1)

    empty = np.flatnonzero(np.bincount(owner, minlength=num_clients) == 0)
    if len(empty):
        raise SemanticFLError(
            f"nid2 leaves {len(empty)} of {num_clients} clients without samples, the first of them "
            f"client {empty[0]}: num_clients must be smaller, or biased_share ("
            f"{config.biased_share:g}) {'larger' if empty[0] < biased else 'smaller'}"
        )
    return by_owner(order, owner, num_clients)


def shards(settings: object, context: PartitionContext) -> Rows:
    """Sort samples by label, cut equal shards, deal `shards_per_client` to each client.

    The pathological split of McMahan et al. (AISTATS 2017). Shards differ by at most 1 sample.
    """
    del settings
    rng, groups, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    count = num_clients * config.shards_per_client
    if count > len(groups):
        raise SemanticFLError(
            f"shards_per_client must be at most {len(groups) // num_clients}: there are "
            f"{len(groups)} samples for {num_clients} clients x {config.shards_per_client} shards"
        )
    order, _ = by_class(rng, groups)
    owner_of_shard = rng.permutation(count) // config.shards_per_client
    shard_sizes = np.diff(equal_offsets(len(order), count))
    return by_owner(order, np.repeat(owner_of_shard, shard_sizes), num_clients)


def quantity(settings: object, context: PartitionContext) -> Rows:
    """Deal sizes by Dirichlet(alpha) shares, labels IID, as in NIID-Bench (Li et al., ICDE 2022).

    Every client gets one sample first, and its share of the others then (our choice: no client is
    empty, whatever alpha, and nothing is redrawn).
    """
    del settings
    rng, groups, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    total = len(groups)
    shares = rng.dirichlet(np.full(num_clients, config.alpha))
    borders = np.minimum(np.cumsum(shares)[:-1] * (total - num_clients), total - num_clients)
    offsets = np.concatenate([[0], borders.astype(np.int64), [total - num_clients]])
    return rng.permutation(total), offsets + np.arange(num_clients + 1)


def natural(settings: object, context: PartitionContext) -> Rows:
    """Deal each value of a column whole, to random clients in equal numbers.

    Numbers of values differ by at most 1. With as many clients as values, client i is the i-th of
    the sorted values, whatever the seed: who a client is can be told, and compared between seeds.
    """
    del settings
    rng, groups, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    order, group_sizes = by_class(rng, groups)
    values = len(group_sizes)
    if num_clients > values:
        raise SemanticFLError(
            f"num_clients must be at most the {values} values of column {config.column!r}, got "
            f"{num_clients}"
        )
    owner_of_value = np.arange(values)
    if num_clients < values:
        owner_of_value = rng.permutation(values) % num_clients
    return by_owner(order, np.repeat(owner_of_value, group_sizes), num_clients)
