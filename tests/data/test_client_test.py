"""Images that clients keep for testing."""

import dataclasses

import numpy as np
import pytest

from semanticfl_jax.config import ClientTestConfig, ConfigError, ExperimentConfig
from semanticfl_jax.data.client_test import hold_out
from semanticfl_jax.data.federation import make_federation
from semanticfl_jax.data.partition import Partition
from semanticfl_jax.data.sources import ImageDataset

LABELS = np.random.default_rng(3).integers(0, 5, 400).astype(np.int32)
SIZES = (1, 2, 3, 10, 31, 40, 113)


@pytest.fixture(scope="module")
def partition():
    indices = np.random.default_rng(1).permutation(400)[: sum(SIZES)]
    return Partition(indices, np.concatenate([[0], np.cumsum(SIZES)]))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_every_client_is_split_class_by_class(partition, share):
    own, tested = hold_out(partition, LABELS, share, seed=0)
    for client, size in enumerate(SIZES):
        parts = own.client(client), tested.client(client)
        assert sorted(np.concatenate(parts)) == sorted(partition.client(client))
        expected = 0 if size == 1 else min(max(round(share * size), 1), size - 1)
        assert len(parts[1]) == expected
        counts = np.bincount(LABELS[partition.client(client)], minlength=5)
        quota = expected / size * counts
        assert (np.abs(np.bincount(LABELS[parts[1]], minlength=5) - quota) < 1).all()


def test_the_split_is_the_seeds(partition):
    a, b, other = (hold_out(partition, LABELS, 0.3, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(a.indices, b.indices)
    assert not np.array_equal(a.indices, other.indices)
    # Whole order kept: of a client's samples, in the order in which they were dealt.
    place = {sample: i for i, sample in enumerate(partition.indices)}
    assert (np.diff([place[sample] for sample in a.indices]) > 0).all()


def test_every_sample_is_kept_as_often(partition):
    times = np.zeros(400)
    for seed in range(2000):
        times[hold_out(partition, LABELS, 0.3, seed)[1].client(3)] += 1
    shares = times[partition.client(3)] / 2000
    # Of ten samples three are kept; the standard error is 0.01.
    np.testing.assert_allclose(shares, 0.3, atol=0.045)


def test_a_federation_trains_on_the_rest_and_saves_all(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 2, 2, 3), dtype=np.uint8)
    names = tuple("abcde")
    dataset = ImageDataset("own", images, LABELS, images[:5], LABELS[:5], names, (0.5,), (0.5,))
    config = ExperimentConfig(num_clients=6, clients_per_round=2, public_per_class=2)
    whole = make_federation(dataset, config)
    config = dataclasses.replace(config, client_test=ClientTestConfig(share=0.25))
    split = make_federation(dataset, config)
    assert split.label_counts().sum() == len(split.partition.indices)
    for client in range(6):
        parts = split.partition.client(client), split.client_test.client(client)
        assert sorted(np.concatenate(parts)) == sorted(whole.partition.client(client))
    split.save(tmp_path, config)
    kept = Partition.load(tmp_path / "partition.npz")
    assert np.array_equal(kept.indices, whole.partition.indices)
    with np.load(tmp_path / "clients.npz") as arrays:
        assert np.array_equal(arrays["test_indices"], split.client_test.indices)
    # From its file the same split follows again.
    path = str(tmp_path / "partition.npz")
    again = dataclasses.replace(config.partition, file=path)
    again = make_federation(dataset, dataclasses.replace(config, partition=again))
    assert np.array_equal(again.client_test.indices, split.client_test.indices)


def test_settings_without_a_test_are_refused():
    with pytest.raises(ConfigError, match="every must be 0 unless share is above 0"):
        ClientTestConfig(every=3)
    with pytest.raises(ConfigError, match="share must be at least 0 and below 1"):
        ClientTestConfig(share=1.0)
