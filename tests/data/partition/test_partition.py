import numpy as np
import pytest

from semanticfl_jax.data.partition import Partition, split_public


def test_label_counts_match_a_loop():
    labels = np.array([2, 0, 1, 2, 2, 0])
    partition = Partition([5, 0, 3, 1], [0, 2, 2, 4])
    expected = [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    np.testing.assert_array_equal(partition.label_counts(labels, 3), expected)
    with pytest.raises(ValueError, match="num_classes"):
        partition.label_counts(labels, 2)


def test_save_and_load(tmp_path):
    partition = Partition([5, 0, 3, 1], [0, 2, 2, 4])
    path = tmp_path / "run" / "partition.npz"
    metadata = {"scheme": "nid1", "public": [4, 2], "alpha": 0.5}
    partition.save(path, scheme="iid")
    partition.save(path, **metadata)
    assert [entry.name for entry in path.parent.iterdir()] == ["partition.npz"]
    loaded, told = Partition.load_with_metadata(path)
    for each in (loaded, Partition.load(path)):
        np.testing.assert_array_equal(each.indices, partition.indices)
        np.testing.assert_array_equal(each.offsets, partition.offsets)
    assert told == metadata


def test_files_without_a_partition_are_named(tmp_path):
    path = tmp_path / "partition.npz"

    def write(content):
        path.write_bytes(content)

    def write_array():
        with open(path, "wb") as file:
            np.save(file, np.arange(3))

    def write_arrays(**arrays):
        np.savez(path, **arrays)

    for make in (
        lambda: write(b""),
        lambda: write(b"PK\3\4 cut short"),
        lambda: write(b"some text"),
        write_array,
        lambda: write_arrays(indices=[0]),
        lambda: write_arrays(indices=[0, 0], offsets=[0, 2], metadata="{}"),
    ):
        make()
        with pytest.raises(ValueError, match=r"partition\.npz does not hold a partition"):
            Partition.load(path)
    with pytest.raises(FileNotFoundError):
        Partition.load(tmp_path / "missing.npz")


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


def test_clients_share_samples_only_if_the_partition_says_so(tmp_path):
    shared = Partition([0, 1, 1, 2], [0, 2, 4], overlapping=True)
    np.testing.assert_array_equal(shared.label_counts(np.array([0, 1, 0]), 2), [[1, 1], [1, 1]])
    shared.save(tmp_path / "partition.npz")
    loaded = Partition.load(tmp_path / "partition.npz")
    assert loaded.overlapping
    np.testing.assert_array_equal(loaded.indices, shared.indices)
    Partition([0, 1], [0, 1, 2]).save(tmp_path / "partition.npz")
    assert not Partition.load(tmp_path / "partition.npz").overlapping


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


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0.5, 1.5], "indices must be whole numbers, at least 0 and below 2.31, got float64"),
        (
            [0, 2**40],
            "indices must be whole numbers, at least 0 and below 2.31, got int64, from 0 to 10",
        ),
        (
            [0, -1],
            "indices must be whole numbers, at least 0 and below 2.31, got int64, from -1 to 0",
        ),
        ([True, False], "indices must be whole numbers, at least 0 and below 2.31, got bool"),
        ([1, 1], r"once, and image 1 is client 0's and client \d's; Partition\(..., overlap"),
    ],
)
def test_indices_are_not_cut_to_fit(indices, message):
    with pytest.raises(ValueError, match=message):
        Partition(indices, [0, 1, 2])
    assert Partition(np.array([0, 7], np.uint64), [0, 1, 2]).indices.tolist() == [0, 7]
    assert Partition([], [0, 0]).sizes.tolist() == [0]
