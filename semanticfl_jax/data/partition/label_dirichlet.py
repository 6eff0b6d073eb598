"""Label skew by Dirichlet shares: `dirichlet`, and the FedDifRC family's `nid1`.

Both are builders of the registry, as those of `schemes.py`. Neither loops over clients, so that a
hundred thousand of them take seconds, and neither draws without a bound.
"""

from __future__ import annotations

import numpy as np

from semanticfl_jax.contexts import PartitionContext
from semanticfl_jax.data.partition.grouping import by_class, by_owner, equal_offsets
from semanticfl_jax.errors import SemanticFLError

#: Clients that `nid1` deals to together (n_auxi_workers of the FedDifRC family's code).
NID1_GROUP = 5
#: Draws for one group of clients before it is given up, and the numbers they may cost (our choice).
MAX_DRAWS = 100_000
MAX_DRAWN_SHARES = 10**7


def dirichlet(settings: object, context: PartitionContext) -> tuple[np.ndarray, np.ndarray]:
    """Deal each class to all clients by its own Dirichlet(alpha) shares, as MOON and FedDisco.

    Class after class, the shares of clients already at the average size are set to zero and the
    rest renormalised. A client left empty receives one sample, drawn uniformly from those that are
    not the first of their client. That is our choice: MOON redraws until all have 10, which never
    ends for many clients.
    """
    del settings
    rng, labels, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    order, class_counts = by_class(rng, labels)
    counts = _draw_counts(rng, class_counts[None], num_clients, config.alpha, least=0.0)[0]
    owner = np.repeat(np.tile(np.arange(num_clients), len(counts)), counts.ravel())
    # Shuffled, so that a client's samples do not lie in the order of their classes.
    shuffle = rng.permutation(len(order))
    order, owner = order[shuffle], owner[shuffle]

    empty = np.flatnonzero(np.bincount(owner, minlength=num_clients) == 0)
    spare = np.delete(np.arange(len(owner)), np.unique(owner, return_index=True)[1])
    owner[rng.choice(spare, len(empty), replace=False)] = empty
    return by_owner(order, owner, num_clients)


def nid1(settings: object, context: PartitionContext) -> tuple[np.ndarray, np.ndarray]:
    """Deal as the FedDifRC family's splitter: milder than `dirichlet`, with clients of equal size.

    Samples are shuffled and dealt proportionally to groups of `NID1_GROUP` clients. A group is
    dealt to as in `dirichlet` and redrawn until each of its clients has half the average size,
    rounded down. The clients' lists, each sorted by class, are concatenated and cut into parts that
    differ by at most 1 sample, so that classes smear over the borders. (The family drops the
    remainder of that cut; dealing it is our choice.)
    """
    del settings
    rng, labels, num_clients = context.rng, context.groups, context.num_clients
    config = context.config
    total, num_classes = len(labels), labels.max() + 1
    starts = np.arange(0, num_clients, NID1_GROUP)
    ends = np.append(starts[1:], num_clients)
    group_sizes = np.diff(ends * total // num_clients, prepend=0)

    order = rng.permutation(total)
    cell = np.repeat(np.arange(len(starts)), group_sizes) * num_classes + labels[order]
    order = order[np.argsort(cell, kind="stable")]
    class_counts = np.bincount(cell, minlength=len(starts) * num_classes)
    class_counts = class_counts.reshape(len(starts), num_classes)

    owners = []
    for members in (NID1_GROUP, num_clients % NID1_GROUP):
        groups = ends - starts == members
        if groups.any():
            counts = _draw_counts(rng, class_counts[groups], members, config.alpha, least=0.5)
            clients = starts[groups][:, None, None] + np.arange(members)[None, None]
            owners.append(np.repeat(np.broadcast_to(clients, counts.shape), counts.ravel()))
    by_client = np.argsort(np.concatenate(owners), kind="stable")
    return order[by_client], equal_offsets(total, num_clients)


def _draw_counts(rng, class_counts, members, alpha, least) -> np.ndarray:
    """Deal every group's classes to its clients; redraw groups with a client that is too small.

    All groups are drawn at once, missing ones several times over; each keeps its first success.

    Args:
      rng: NumPy generator.
      class_counts: samples of each class in each group, int `[groups, K]`.
      members: clients in each group.
      alpha: Dirichlet concentration.
      least: smallest size of a client, as a share of its group's average, rounded down.

    Returns:
      int64 `[groups, K, members]`.
    """
    groups, num_classes = class_counts.shape
    result = np.zeros((groups, num_classes, members), np.int64)
    missing = np.arange(groups)
    max_draws = min(MAX_DRAWS, max(10, MAX_DRAWN_SHARES // (num_classes * members)))
    draws = 0
    while len(missing):
        if draws >= max_draws:
            raise SemanticFLError(
                f"{draws} draws found no split of {class_counts.sum()} samples of {num_classes} "
                f"classes that leaves each client at least {least:g} of the average size: alpha = "
                f"{alpha:g} must be larger, or the clients fewer"
            )
        tries = max(1, min(64, 2**18 // (len(missing) * num_classes * members)))
        draws += tries
        counts, good = _draw_once(
            rng, np.repeat(class_counts[missing], tries, 0), members, alpha, least
        )
        good = good.reshape(len(missing), tries)
        counts = counts.reshape(len(missing), tries, num_classes, members)
        done = good.any(1)
        result[missing[done]] = counts[done, good[done].argmax(1)]
        missing = missing[~done]
    return result


def _draw_once(rng, class_counts, members, alpha, least) -> tuple[np.ndarray, np.ndarray]:
    """Draw once for each row of `class_counts`: counts `[rows, K, members]`, which are good."""
    rows, num_classes = class_counts.shape
    average = class_counts.sum(1, keepdims=True) / members
    sizes = np.zeros((rows, members), np.int64)
    counts = np.zeros((rows, num_classes, members), np.int64)
    good = np.ones(rows, bool)
    for k in range(num_classes):
        shares = rng.dirichlet(np.full(members, alpha), size=rows)
        shares = np.nan_to_num(shares) * (sizes < average)
        mass = shares.sum(1, keepdims=True)
        # With a tiny alpha nothing may be left for the clients below the average: not a good draw.
        good &= mass[:, 0] > 0
        count = class_counts[:, k, None]
        edges = np.cumsum(shares / np.where(mass > 0, mass, 1), 1)[:, :-1] * count
        edges = np.minimum(edges.astype(np.int64), count)
        counts[:, k] = np.diff(edges, axis=1, prepend=0, append=count)
        sizes += counts[:, k]
    return counts, good & (sizes.min(1) >= (least * average[:, 0]).astype(np.int64))
