"""What each partition scheme promises, against plain loops and published figures."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from semanticfl_jax.config import PartitionConfig
from semanticfl_jax.data.partition import make_partition
from semanticfl_jax.data.partition.long_tail import long_tail
from semanticfl_jax.data.partition.statistics import partition_statistics
from semanticfl_jax.registry import PARTITIONS
from tests.built_in import built_in

CIFAR_LABELS = np.repeat(np.arange(10), 5000)


def config_of(scheme, **fields):
    column = "writer" if scheme == "natural" else None
    return PartitionConfig(scheme=scheme, column=column, **fields)


def counts_of(scheme, labels, num_clients, seed=0, column=None, **fields):
    config = config_of(scheme, **fields)
    partition = make_partition(config, labels, num_clients, seed=seed, column=column)
    return partition.label_counts(labels, labels.max() + 1)


def figures(counts):
    """Mean over clients of their effective classes, and of their largest class share."""
    statistics = partition_statistics(counts)
    return statistics.effective_classes.mean(), statistics.largest_share.mean()


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(
    scheme=st.sampled_from(sorted(built_in(PARTITIONS))),
    total=st.integers(1, 300),
    classes=st.integers(1, 12),
    clients=st.integers(1, 300),
    alpha=st.floats(0.3, 100),
    imbalance_factor=st.sampled_from([1.0, 1.5, 20.0, 1e9]),
    biased=st.integers(0, 12),
    held=st.integers(1, 12),
    shards=st.integers(1, 5),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_sample_is_dealt_once_and_no_client_is_empty(
    scheme, total, classes, clients, alpha, imbalance_factor, biased, held, shards, seed
):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, total) * 7
    column = np.array(["a", "bb", "ccc", "dd"])[rng.integers(0, 4, total)]
    if scheme == "natural":
        clients = min(clients, 4)
    clients = min(clients, total)
    config = config_of(
        scheme,
        alpha=alpha,
        imbalance_factor=imbalance_factor,
        biased_clients=biased,
        classes_per_biased=held,
        shards_per_client=shards,
    )
    try:
        partition, again = (
            make_partition(config, labels, clients, seed=seed, column=column) for _ in range(2)
        )
    except ValueError as error:
        reasons = {
            # With few classes for a group no share of each class may be small enough.
            "nid1": "draws found no split",
            "nid2": "nid2 leaves|must have biased_share|classes_per_biased|biased_clients",
            "shards": "shards_per_client must be at most",
            "natural": "num_clients must be at most the",
        }
        message = reasons.get(scheme, "never")
        if imbalance_factor > 1:
            message += "|samples that imbalance_factor"
        with pytest.raises(ValueError, match=message):
            raise error from None
        return
    np.testing.assert_array_equal(partition.indices, again.indices)
    np.testing.assert_array_equal(partition.offsets, again.offsets)
    assert partition.num_clients == clients
    assert partition.sizes.min() >= 1
    if imbalance_factor == 1:
        assert sorted(partition.indices) == list(range(total))
    else:
        left = np.unique(labels[partition.indices], return_counts=True)
        there = np.unique(labels, return_counts=True)
        np.testing.assert_array_equal(left[0], there[0])
        assert (left[1] <= there[1]).all()
    if scheme in ("iid", "nid1"):
        assert np.ptp(partition.sizes) <= 1
    if scheme == "shards":
        assert np.ptp(partition.sizes) <= shards
    if scheme == "natural":
        values = [set(column[partition.client(i)]) for i in range(clients)]
        assert sum(map(len, values)) == len(set().union(*values))
        assert np.ptp([len(each) for each in values]) <= 1


@pytest.mark.parametrize("scheme", sorted(built_in(PARTITIONS)))
def test_seed_decides(scheme):
    labels, column = CIFAR_LABELS[::50], np.arange(1000) % 40
    first, other = (
        make_partition(config_of(scheme, alpha=0.5), labels, 12, seed=seed, column=column)
        for seed in (3, 4)
    )
    assert not np.array_equal(first.indices, other.indices)


@pytest.mark.parametrize(
    "alpha, effective, largest", [(0.05, 2.91, 0.47), (0.2, 4.13, 0.40), (0.5, 5.54, 0.33)]
)
def test_nid1_is_as_skewed_as_the_familys_splitter(alpha, effective, largest):
    """Measured with the family's released splitter, each a mean over 3 seeds."""
    seeds = [
        figures(counts_of("nid1", CIFAR_LABELS, 10, seed=seed, alpha=alpha)) for seed in range(30)
    ]
    mean, deviation = np.mean(seeds, 0), np.std(seeds, 0)
    error_of_three = deviation / np.sqrt(3)
    np.testing.assert_array_less(np.abs(mean - [effective, largest]), 2 * error_of_three)


def plain_dirichlet_sizes(labels, clients, alpha, rng):
    """MOON's splitter, client after client; class counts `[clients, 10]`."""
    counts = np.zeros((clients, 10), int)
    for k in range(10):
        p = rng.dirichlet([alpha] * clients)
        p = [x * (counts[i].sum() < len(labels) / clients) for i, x in enumerate(p)]
        cuts = (np.cumsum(p) / np.sum(p) * (labels == k).sum()).astype(int)[:-1]
        counts[:, k] = [len(part) for part in np.split(np.flatnonzero(labels == k), cuts)]
    return counts


@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_dirichlet_has_the_statistics_of_a_plain_loop(alpha):
    labels = CIFAR_LABELS[::10]
    ours, loop = [], []
    for seed in range(60):
        counts = counts_of("dirichlet", labels, 10, seed=seed, alpha=alpha)
        other = plain_dirichlet_sizes(labels, 10, alpha, np.random.default_rng(1000 + seed))
        other = other[other.sum(1) > 0]
        ours.append([*figures(counts), counts.sum(1).std(), counts.sum(1).max()])
        loop.append([*figures(other), other.sum(1).std(), other.sum(1).max()])
    spread = np.sqrt((np.var(ours, 0) + np.var(loop, 0)) / 60)
    np.testing.assert_array_less(np.abs(np.mean(ours, 0) - np.mean(loop, 0)), 3.5 * spread)


@pytest.mark.parametrize("scheme", sorted(built_in(PARTITIONS)))
def test_many_clients(scheme):
    labels = np.random.default_rng(0).integers(0, 10, 200_000)
    config = config_of(scheme, alpha=0.05, biased_clients=30_000)
    partition = make_partition(config, labels, 50_000, seed=0, column=np.arange(200_000) % 60_000)
    assert partition.sizes.min() >= 1
    assert partition.sizes.sum() == 200_000


def test_nid2_is_feddiscos_niid2():
    """5 biased clients of two classes each and an unbiased one, all of about 8,333 images."""
    counts = counts_of(
        "nid2", CIFAR_LABELS, 6, biased_clients=5, classes_per_biased=2, biased_share=5 / 6
    )
    expected = np.zeros((6, 10))
    for client in range(5):
        expected[client, 2 * client : 2 * client + 2] = 4167
    expected[5] = 833
    np.testing.assert_array_equal(counts, expected)


def nid2_loop(class_sizes, clients, biased, held, share):
    """Real-valued class counts `[clients, K]` of NID2, one sample share after another."""
    classes = len(class_sizes)
    counts = np.zeros((clients, classes))
    for k, size in enumerate(class_sizes):
        holders = [i for i in range(biased) if k in [(i * held + j) % classes for j in range(held)]]
        for i in holders:
            counts[i, k] = share * size / len(holders)
        rest = size * (1 - share) if holders else size
        for i in range(biased, clients):
            counts[i, k] = rest / (clients - biased)
    return counts


@pytest.mark.parametrize(
    "clients, biased, held, share",
    [(10, 6, 1, 0.5), (17, 14, 1, 0.9), (9, 5, 4, 0.3), (4, 0, 1, 0.5), (5, 5, 2, 1.0)],
)
def test_nid2_is_its_definition_up_to_rounding(clients, biased, held, share):
    labels = np.repeat(np.arange(10), [100, 205, 300, 111, 99, 303, 77, 50, 201, 333])
    counts = counts_of(
        "nid2",
        labels,
        clients,
        biased_clients=biased,
        classes_per_biased=held,
        biased_share=share,
    )
    expected = nid2_loop(np.bincount(labels), clients, biased, held, share)
    np.testing.assert_allclose(counts, expected, atol=1.5)
    assert ((counts == 0) == (expected == 0)).all()
    if clients > biased:
        assert np.ptp(counts[biased:].sum(1)) <= 1


def test_shards_are_pieces_of_the_sorted_samples():
    labels = np.random.default_rng(0).permutation(CIFAR_LABELS[::10])
    counts = counts_of("shards", labels, 100, shards_per_client=2)
    assert (counts.sum(1) == 50).all()
    # 20 shards of 25 in every class: nobody has more than two classes, and all in 25s.
    assert set(np.unique(counts)) == {0, 25, 50}
    one_class = ((counts > 0).sum(1) == 1).mean()
    assert 0 < one_class < 0.3  # 19 of 199, if the second shard is drawn at random


@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 1e-4])
def test_quantity_with_tiny_alpha_still_serves_everybody(alpha):
    sizes = counts_of("quantity", np.arange(3000) % 3, 1000, alpha=alpha).sum(1)
    assert sizes.min() == 1
    assert sizes.max() > 1000


def test_quantity_has_dirichlet_sizes_and_iid_labels():
    labels = np.arange(100_000) % 4
    counts = counts_of("quantity", labels, 1000, alpha=2.0)
    share = counts.sum(1) / len(labels)
    # The variance of a component of Dirichlet(alpha, ..., alpha) of N, of the 99 % that it deals.
    variance = 0.99**2 * (1 / 1000) * (1 - 1 / 1000) / (1000 * 2.0 + 1)
    np.testing.assert_allclose(share.var(), variance, rtol=0.2)
    large = counts[counts.sum(1) > 200]
    np.testing.assert_allclose(large.sum(0) / large.sum(), 0.25, atol=0.01)


@pytest.mark.parametrize("clients", [3, 7])
def test_natural_keeps_the_values_of_a_column_together(clients):
    column = np.array(["d", "a", "g", "c", "b", "e", "f"])[np.arange(70) % 7]
    config = config_of("natural")
    partition = make_partition(config, np.zeros(70, int), clients, seed=1, column=column)
    values = [set(column[partition.client(i)]) for i in range(clients)]
    assert sorted(map(len, values)) == ([1] * 7 if clients == 7 else [2, 2, 3])
    assert set.union(*values) == set("abcdefg")


def test_as_many_natural_clients_as_values_are_the_sorted_values_with_every_seed():
    column = np.array(["d", "a", "g", "c", "b", "e", "f"])[np.arange(70) % 7]
    config = config_of("natural")
    for seed in range(3):
        partition = make_partition(config, np.zeros(70, int), 7, seed=seed, column=column)
        assert ["".join(set(column[partition.client(i)])) for i in range(7)] == list("abcdefg")


@pytest.mark.parametrize("factor", [1.0, 10.0, 100.0])
def test_long_tail_keeps_exponentially_less(factor):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 1000))
    kept = long_tail(np.random.default_rng(0), labels, factor)
    expected = [int(1000 * factor ** (-k / 4) + 1e-6) for k in range(5)]
    np.testing.assert_array_equal(np.bincount(labels[kept]), expected)
    assert (np.diff(kept) > 0).all()
    other = long_tail(np.random.default_rng(1), labels, factor)
    assert np.array_equal(kept, other) == (factor == 1)


def test_long_tail_of_uneven_classes_takes_what_there_is():
    labels = np.repeat([0, 1, 2], [10, 100, 3])
    kept = long_tail(np.random.default_rng(0), labels, 1e6)
    np.testing.assert_array_equal(np.bincount(labels[kept]), [10, 1, 1])
    np.testing.assert_array_equal(
        long_tail(np.random.default_rng(0), np.zeros(7, int), 50), np.arange(7)
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_clients": 0}, "num_clients must be from 1"),
        ({"num_clients": 101}, "num_clients must be from 1 to the number of samples 100"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"labels": np.zeros(100)}, "labels must be integers"),
        # One class has one share a client, and these are almost never even.
        ({"labels": np.zeros(100, int), "alpha": 0.01}, "draws found no split"),
        (
            {"scheme": "dirichlet", "labels": np.arange(40), "num_clients": 40, "alpha": 1e-9},
            "no split",
        ),
        ({"scheme": "shards", "shards_per_client": 11}, "must be at most 10: there are 100"),
        ({"scheme": "nid2", "classes_per_biased": 11}, "classes_per_biased must be at most 10"),
        ({"scheme": "nid2", "biased_clients": 11}, "biased_clients must be at most num_clients 10"),
        ({"scheme": "nid2", "biased_clients": 10}, "without unbiased clients must have"),
        (
            {"scheme": "nid2", "biased_clients": 5, "biased_share": 1, "classes_per_biased": 2},
            "leaves 5 of 10 clients without samples, the first of them client 5.*smaller",
        ),
        (
            {"scheme": "nid2", "biased_clients": 99, "num_clients": 100},
            "leaves 49 of 100 clients without samples, the first of them client 50.*larger",
        ),
        ({"scheme": "quantity", "alpha": 1e308}, "alpha must be a number that 32 bits hold"),
        ({"scheme": "natural"}, "column must be one value a sample"),
        ({"scheme": "natural", "column": np.zeros(99)}, "column must be one value a sample"),
        (
            {"scheme": "natural", "column": np.arange(100) % 9},
            "at most the 9 values of column 'writer', got 10",
        ),
        ({"scheme": "iid", "imbalance_factor": 1e9, "num_clients": 50}, "at most 19, the samples"),
    ],
)
def test_impossible_requests(change, message):
    fields = {"scheme": "nid1", "alpha": 0.5, **change}
    request = {"labels": np.arange(100) % 10, "num_clients": 10, "seed": 0, "column": None}
    request = {name: fields.pop(name, value) for name, value in request.items()}
    with pytest.raises(ValueError, match=message):
        make_partition(config_of(**fields), **request)
