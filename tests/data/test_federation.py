"""Who gets which samples in a run, and partitions that come back from a file."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.config import (
    AggregationConfig,
    ClientTestConfig,
    ConfigError,
    ExperimentConfig,
    FeatureSkewConfig,
    PartitionConfig,
    to_dict,
)
from semanticfl_jax.data import federation
from semanticfl_jax.data.partition import Partition, draw_balanced
from semanticfl_jax.data.sources import ImageDataset
from semanticfl_jax.errors import SemanticFLError
from tests.federation import noise_images

LABELS = np.arange(200, dtype=np.int32) % 4
CONFIG = ExperimentConfig(dataset="digits", num_clients=6, public_per_class=3, seed=5)


@pytest.fixture
def dataset():
    image = np.zeros((1, 1, 1, 3), np.uint8)
    return ImageDataset(
        "digits",
        np.broadcast_to(image, (200, 1, 1, 3)),
        LABELS,
        image,
        LABELS[:1],
        tuple("abcd"),
        (0.5,) * 3,
        (0.5,) * 3,
        columns={"writer": np.array(["x", "y", "z"] * 66 + ["x", "y"])},
    )


def with_partition(config=CONFIG, **fields):
    return dataclasses.replace(config, partition=PartitionConfig(**fields))


@pytest.mark.parametrize("factor", [1, 10])
def test_server_and_clients_share_no_sample(dataset, factor):
    config = with_partition(scheme="dirichlet", imbalance_factor=factor)
    public, partition = federation.deal(dataset, config)
    assert np.bincount(LABELS[public]).tolist() == [3, 3, 3, 3]
    used = np.concatenate([public, partition.indices])
    assert len(np.unique(used)) == len(used)
    left = np.bincount(LABELS[partition.indices]).tolist()
    assert left == ([47] * 4 if factor == 1 else [47, 21, 10, 4])


def test_a_limit_takes_as_many_of_every_class_and_leaves_the_public_split(dataset):
    public, whole = federation.deal(dataset, CONFIG)
    limited = dataclasses.replace(CONFIG, train_limit=82)
    same, partition = federation.deal(dataset, limited)
    np.testing.assert_array_equal(same, public)
    assert np.bincount(LABELS[partition.indices]).tolist() == [21, 21, 20, 20]
    assert set(partition.indices) <= set(whole.indices)
    other = federation.deal(dataset, dataclasses.replace(limited, seed=6))[1]
    assert set(other.indices) != set(partition.indices)
    with pytest.raises(ValueError, match="train_limit must be from 1 to 188"):
        federation.deal(dataset, dataclasses.replace(CONFIG, train_limit=189))
    with pytest.raises(ValueError, match="train_limit must be 0 with a partition"):
        federation.make_federation(dataset, limited, [np.arange(3)] * 6)


def test_classes_with_few_samples_give_all_and_others_make_up_for_it():
    labels = np.repeat([0, 1, 2], [50, 3, 50])
    chosen = draw_balanced(labels, 23, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [10, 3, 10]
    np.testing.assert_array_equal(chosen, np.unique(chosen))


def test_a_limit_draws_at_random_within_each_class():
    labels = np.repeat([0, 1, 2], 20)
    one, other = (draw_balanced(labels, 12, seed=seed) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert np.bincount(labels[one]).tolist() == [4, 4, 4]


def test_natural_clients_go_by_the_column_of_the_private_samples(dataset):
    config = dataclasses.replace(CONFIG, num_clients=3, clients_per_round=3)
    _, partition = federation.deal(
        dataset, with_partition(config, scheme="natural", column="writer")
    )
    writers = [set(dataset.columns["writer"][partition.client(i)]) for i in range(3)]
    assert list(map(sorted, writers)) == [["x"], ["y"], ["z"]]


def test_who_natural_clients_are_is_kept_and_merged_ones_are_spoken_of(dataset, tmp_path):
    config = with_partition(CONFIG, scheme="natural", column="writer")
    for clients, found in ((3, [["x"], ["y"], ["z"]]), (2, None)):
        config = dataclasses.replace(config, num_clients=clients, clients_per_round=clients)
        _, partition = save(dataset, config, tmp_path / "partition.npz")
        values = Partition.load_with_metadata(tmp_path / "partition.npz")[1]["values"]
        writers = dataset.columns["writer"]
        assert values == [sorted(set(writers[partition.client(i)])) for i in range(clients)]
        assert found in (None, values)
        dealt = federation.make_federation(dataset, config)
        line = federation.describe_merged(dealt, config)
        assert (line is None) == (clients == 3)
    assert line.startswith("2 clients share the 3 values of column 'writer', 1 or 2 each, drawn by")


def test_an_unknown_column_is_answered_with_those_there_are(dataset):
    config = with_partition(scheme="natural", column="author")
    with pytest.raises(ValueError, match=r"column of digits \(writer\), got 'author'"):
        federation.deal(dataset, config)
    with pytest.raises(ValueError, match=r"column of digits \(none\)"):
        federation.deal(dataclasses.replace(dataset, columns={}), config)


def save(dataset, config, path):
    public, partition = federation.deal(dataset, config)
    federation.save(path, public, partition, dataset, config)
    return public, partition


def test_a_saved_partition_comes_back_for_any_scheme_and_seed(dataset, tmp_path):
    path = tmp_path / "partition.npz"
    made = with_partition(scheme="shards", imbalance_factor=2)
    public, partition = save(dataset, made, path)
    config = dataclasses.replace(with_partition(scheme="iid", file=str(path)), seed=9)
    public_again, partition_again = federation.deal(dataset, config)
    for old, new in (
        (public, public_again),
        (partition.indices, partition_again.indices),
        (partition.offsets, partition_again.offsets),
    ):
        np.testing.assert_array_equal(old, new)
        assert old.dtype == new.dtype
    told = Partition.load_with_metadata(path)[1]
    assert told["partition"] == to_dict(made.partition)
    assert told["seed"] == 5


def test_a_saved_partition_of_something_else_is_refused_naming_what_differs(dataset, tmp_path):
    path = tmp_path / "partition.npz"
    save(dataset, CONFIG, path)
    config = with_partition(file=str(path))
    for change, message in (
        ({"num_clients": 7}, "num_clients was 6, is 7"),
        ({"public_per_class": 4}, "public_per_class was 3, is 4"),
        ({"train_limit": 100}, "train_limit was 0, is 100"),
    ):
        with pytest.raises(ValueError, match=message):
            federation.deal(dataset, dataclasses.replace(config, **change))
    other = dataclasses.replace(dataset, name="cifar10", train_labels=LABELS[:-1])
    with pytest.raises(ValueError, match="dataset was 'digits', is 'cifar10'; num_samples was 200"):
        federation.deal(other, config)
    # Another form of the data set has the same images in another order.
    other = dataclasses.replace(dataset, train_labels=LABELS[::-1].copy())
    with pytest.raises(SemanticFLError, match="other training labels, or another order of them"):
        federation.deal(other, config)


def test_a_saved_partition_without_public_images_serves_no_run_that_needs_some(dataset, tmp_path):
    parts = [np.arange(20 * i, 20 * i + 20) for i in range(6)]
    made = federation.make_federation(dataset, CONFIG, parts)
    path = tmp_path / "partition.npz"
    federation.save(path, made.public, made.partition, dataset, CONFIG)
    config = with_partition(file=str(path))
    assert len(federation.deal(dataset, config)[1].indices) == 120
    config = dataclasses.replace(config, aggregation=AggregationConfig("fltrust"))
    with pytest.raises(SemanticFLError, match="leaves the server no public images"):
        federation.deal(dataset, config)


def test_clients_that_share_images_have_none_corrupted_or_kept_for_testing(dataset):
    shared = Partition(np.tile(np.arange(100), 6), 100 * np.arange(7), overlapping=True)
    federation.make_federation(dataset, CONFIG, shared)
    for changes, field in (
        ({"feature_skew": FeatureSkewConfig(("noise",))}, "feature_skew.corruptions"),
        ({"client_test": ClientTestConfig(share=0.2)}, "client_test.share"),
    ):
        with pytest.raises(ConfigError, match=f"{field} must be left out with a partition whose"):
            federation.make_federation(dataset, dataclasses.replace(CONFIG, **changes), shared)


@pytest.mark.parametrize(
    ("indices", "public", "message"),
    [
        ([0, 1, 2, 3, 4, 200], [], "indices from 0 to 199, has 0 to 200"),
        ([0, 1, 2, 3, 4, 5], [-1], "indices from 0 to 199, has -1 to 5"),
        ([0, 1, 2, 3, 4, 5], [7, 3], "gives the server samples that clients hold"),
        ([0, 1, 2, 3, 4], [], "leaves client 2 without samples"),
    ],
)
def test_a_damaged_saved_partition_is_refused(dataset, tmp_path, indices, public, message):
    path = tmp_path / "partition.npz"
    offsets = [0, 1, 2, 3, 4, 5, 6] if len(indices) == 6 else [0, 1, 2, 2, 3, 4, 5]
    partition = Partition(indices, offsets)
    federation.save(path, np.array(public), partition, dataset, CONFIG)
    with pytest.raises(ValueError, match=message):
        federation.deal(dataset, with_partition(file=str(path)))


def test_description_agrees_with_the_partition(dataset, tmp_path):
    _, partition = federation.deal(dataset, with_partition(scheme="shards"))
    _, summary = federation.statistics_of(dataset, partition)
    federation.draw_partition(dataset, partition, tmp_path)
    assert summary["sizes"]["max"] == partition.sizes.max()
    holds = [len(set(LABELS[partition.client(i)])) for i in range(6)]
    assert summary["effective_classes"]["max"] <= max(holds)
    assert {path.name for path in tmp_path.iterdir()} == {"partition.png", "partition_clients.png"}
    assert "Gini of sizes 0.0" in federation.headline(summary)


def test_a_class_with_too_few_images_for_the_public_split_is_named(dataset):
    config = dataclasses.replace(CONFIG, public_per_class=51)
    with pytest.raises(ConfigError, match=r"public_per_class must be at most 50, .* a, got 51; 0"):
        federation.deal(dataset, config)


def test_too_many_clients_are_told_what_the_server_keeps(dataset):
    config = dataclasses.replace(CONFIG, num_clients=189)
    message = (
        r"num_clients must be at most 188, .* left for clients \(200, after public_per_class=3 "
        r"took 12\), got 189"
    )
    with pytest.raises(ValueError, match=message):
        federation.deal(dataset, with_partition(config, scheme="iid"))
    _, partition = federation.deal(
        dataset, with_partition(dataclasses.replace(config, num_clients=188), scheme="iid")
    )
    assert partition.sizes.tolist() == [1] * 188


def test_a_partition_object_must_fit_the_data(dataset):
    def made(indices, offsets):
        partition = Partition(indices, offsets)
        return federation.make_federation(dataset, CONFIG, partition).partition

    offsets = [0, 2, 3, 4, 5, 6, 9]
    assert made(np.arange(9), offsets).num_clients == 6
    assert federation.make_federation(
        dataset, CONFIG, [np.arange(i, 200, 6) for i in range(6)]
    ).given
    assert not federation.make_federation(dataset, CONFIG).given
    with pytest.raises(ValueError, match="num_clients must be 2, as partition has, got 6"):
        made(np.arange(9), [0, 3, 9])
    with pytest.raises(ValueError, match="partition must have indices from 0 to 199, has 200"):
        made(np.arange(192, 201), offsets)
    with pytest.raises(ValueError, match="partition must give one client a sample at least"):
        made(np.arange(0), [0] * 7)
    assert made(np.arange(9), [0, 2, 3, 3, 5, 6, 9]).sizes[2] == 0


def test_fltrust_has_public_images_beside_a_given_partition(dataset):
    config = dataclasses.replace(CONFIG, aggregation=AggregationConfig("fltrust"))
    parts = [np.arange(20 * i, 20 * i + 20) for i in range(6)]
    public = federation.make_federation(dataset, config, parts).public
    assert np.bincount(LABELS[public]).tolist() == [3, 3, 3, 3] and public.min() >= 120
    assert not len(federation.make_federation(dataset, CONFIG, parts).public)


def test_the_images_of_corrupted_clients_alone_are_corrupted():
    world = noise_images()
    skew = FeatureSkewConfig(("contrast",), share=0.5)
    config = dataclasses.replace(CONFIG, public_per_class=2, feature_skew=skew)
    made = federation.make_federation(world, config)
    kinds = made.corruptions.kinds
    assert None in kinds and len(set(kinds)) == 2
    for client, kind in enumerate(kinds):
        rows = made.partition.client(client)
        same = np.array_equal(made.dataset.train_images[rows], world.train_images[rows])
        assert same == (kind is None)
    np.testing.assert_array_equal(
        made.dataset.train_images[made.public], world.train_images[made.public]
    )
