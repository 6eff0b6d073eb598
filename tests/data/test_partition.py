import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from semanticfl_jax.data.partition import SCHEMES, Partition, make_partition, split_public

CIFAR_LABELS = np.repeat(np.arange(10), 5000)


def effective_classes(counts):
    """Mean over clients of exp(entropy of their labels), and of their largest class share."""
    share = counts / counts.sum(1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(1)
    return np.exp(entropy).mean(), share.max(1).mean()


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    scheme=st.sampled_from(sorted(SCHEMES)),
    total=st.integers(1, 300),
    classes=st.integers(1, 12),
    clients=st.integers(1, 300),
    alpha=st.floats(0.3, 100),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_sample_is_dealt_once_and_no_client_is_empty(
    scheme, total, classes, clients, alpha, seed
):
    hypothesis.assume(clients <= total)
    labels = np.random.default_rng(seed).integers(0, classes, total) * 7
    try:
        partition = make_partition(scheme, labels, clients, alpha=alpha, seed=seed)
    except ValueError as error:
        # With few classes for a group no share of each class may be small enough.
        assert scheme == "nid1" and "draws found no split" in str(error)
        return
    assert partition.num_clients == clients
    assert sorted(partition.indices) == list(range(total))
    assert partition.sizes.min() >= 1
    if scheme != "dirichlet":
        assert partition.sizes.max() - partition.sizes.min() <= 1
    joined = np.concatenate([partition.client(i) for i in range(clients)])
    np.testing.assert_array_equal(joined, partition.indices)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_seed_decides(scheme):
    labels = CIFAR_LABELS[::50]
    first, again, other = (
        make_partition(scheme, labels, 12, alpha=0.5, seed=seed).indices for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    "alpha, effective, largest", [(0.05, 2.91, 0.47), (0.2, 4.13, 0.40), (0.5, 5.54, 0.33)]
)
def test_nid1_is_as_skewed_as_the_familys_splitter(alpha, effective, largest):
    """Measured with the family's released splitter, each a mean over 3 seeds."""
    seeds = [
        effective_classes(
            make_partition("nid1", CIFAR_LABELS, 10, alpha=alpha, seed=seed).label_counts(
                CIFAR_LABELS, 10
            )
        )
        for seed in range(30)
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
        counts = make_partition("dirichlet", labels, 10, alpha=alpha, seed=seed).label_counts(
            labels, 10
        )
        other = plain_dirichlet_sizes(labels, 10, alpha, np.random.default_rng(1000 + seed))
        other = other[other.sum(1) > 0]
        ours.append([*effective_classes(counts), counts.sum(1).std(), counts.sum(1).max()])
        loop.append([*effective_classes(other), other.sum(1).std(), other.sum(1).max()])
    spread = np.sqrt((np.var(ours, 0) + np.var(loop, 0)) / 60)
    np.testing.assert_array_less(np.abs(np.mean(ours, 0) - np.mean(loop, 0)), 3.5 * spread)


def test_many_clients():
    labels = np.random.default_rng(0).integers(0, 10, 200_000)
    partition = make_partition("dirichlet", labels, 50_000, alpha=0.05, seed=0)
    assert partition.sizes.min() >= 1
    assert partition.sizes.sum() == 200_000


def test_label_counts_match_a_loop():
    labels = np.array([2, 0, 1, 2, 2, 0])
    partition = Partition([5, 0, 3, 1], [0, 2, 2, 4])
    expected = [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(partition.label_counts(labels, 3), expected)
    with pytest.raises(ValueError, match="num_classes"):
        partition.label_counts(labels, 2)


def test_save_and_load(tmp_path):
    partition = make_partition("nid1", CIFAR_LABELS[::100], 7, alpha=0.5, seed=1)
    path = tmp_path / "run" / "partition.npz"
    partition.save(path, scheme="nid1", alpha=0.5)
    partition.save(path, scheme="nid1", alpha=0.5)
    assert [entry.name for entry in path.parent.iterdir()] == ["partition.npz"]
    loaded = Partition.load(path)
    np.testing.assert_array_equal(loaded.indices, partition.indices)
    np.testing.assert_array_equal(loaded.offsets, partition.offsets)
    with np.load(path, allow_pickle=False) as arrays:
        assert str(arrays["metadata"]) == '{"alpha": 0.5, "scheme": "nid1"}'


@pytest.mark.parametrize(
    "indices, offsets, message",
    [
        ([0, 1], [0, 1], "number of indices"),
        ([0, 1], [0, 2, 1, 2], "not fall"),
        ([0, 0], [0, 2], "at most once"),
        ([0, -1], [0, 2], "at least 0"),
    ],
)
def test_what_is_no_partition(indices, offsets, message):
    with pytest.raises(ValueError, match=message):
        Partition(indices, offsets)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scheme": "nid3"}, "iid, dirichlet, nid1"),
        ({"num_clients": 0}, "num_clients must be from 1"),
        ({"num_clients": 101}, "num_clients must be from 1 to the number of samples 100"),
        ({"alpha": 0.0}, "alpha must be greater than 0"),
        ({"alpha": float("nan")}, "alpha must be greater than 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"labels": np.zeros(100)}, "labels must be integers"),
        # One class has one share a client, and these are almost never even.
        ({"labels": np.zeros(100, int), "alpha": 0.01}, "draws found no split"),
        (
            {"scheme": "dirichlet", "labels": np.arange(40), "num_clients": 40, "alpha": 1e-9},
            "no split",
        ),
    ],
)
def test_impossible_requests(change, message):
    request = {"scheme": "nid1", "labels": np.arange(100) % 10, "num_clients": 10}
    request |= {"alpha": 0.5, "seed": 0, **change}
    with pytest.raises(ValueError, match=message):
        make_partition(**request)


@pytest.mark.parametrize("per_class", [0, 1, 20])
def test_public_split(per_class):
    labels = np.random.default_rng(0).permutation(np.repeat([1, 4, 5], [20, 31, 40]))
    public, private = split_public(labels, per_class, seed=3)
    assert public.dtype == private.dtype == np.int64
    assert [(labels[public] == k).sum() for k in (1, 4, 5)] == [per_class] * 3
    np.testing.assert_array_equal(np.sort(np.concatenate([public, private])), np.arange(91))


def test_public_split_draws_at_random():
    labels = np.repeat(np.arange(10), 50)
    first, other = (split_public(labels, 5, seed)[0] for seed in (0, 1))
    assert (first != other).any()


@pytest.mark.parametrize("per_class, message", [(21, "at most 20, .* class 1"), (-1, "at least 0")])
def test_public_split_out_of_range(per_class, message):
    with pytest.raises(ValueError, match=message):
        split_public(np.repeat([1, 4], [20, 31]), per_class, seed=0)
