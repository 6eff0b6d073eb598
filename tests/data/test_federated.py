import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from semanticfl_jax.data.federated import epoch_order, federate, gather_batch, pad_batches
from semanticfl_jax.data.partition import Partition

SIZES = (5, 0, 8, 1)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20)
    images = rng.integers(0, 256, (20, 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(20)  # every image carries its index
    partition = Partition(rng.permutation(20)[: sum(SIZES)], np.cumsum([0, *SIZES]))
    return images, labels, partition


@pytest.fixture(scope="module")
def data(arrays):
    return federate(*arrays, num_classes=3)


def test_federate(arrays, data):
    images, labels, partition = arrays
    assert data.max_size == 8
    np.testing.assert_array_equal(data.images.reshape(images.shape), images)
    np.testing.assert_array_equal(data.sizes, SIZES)
    np.testing.assert_array_equal(data.label_counts, partition.label_counts(labels, 3))
    dtypes = {name: getattr(data, name).dtype.name for name in ("images", "labels", "indices")}
    assert dtypes == {"images": "uint8", "labels": "int32", "indices": "int32"}
    assert len(jax.tree.leaves(data)) == 6


def test_federate_replicates(arrays):
    mesh = jax.make_mesh((8,), ("clients",), axis_types=(jax.sharding.AxisType.Auto,))
    data = federate(*arrays, num_classes=3, sharding=NamedSharding(mesh, PartitionSpec()))
    for leaf in jax.tree.leaves(data):
        assert len(leaf.sharding.device_set) == 8 and leaf.is_fully_replicated


def test_federate_refuses_what_does_not_fit(arrays):
    images, labels, partition = arrays
    with pytest.raises(ValueError, match="uint8"):
        federate(images.astype(np.float64), labels, partition, 3)
    with pytest.raises(ValueError, match=r"or float32 or int32 \[n, ...\], got uint8"):
        federate(images.reshape(len(images), -1), labels, partition, 3)
    with pytest.raises(ValueError, match="one an image"):
        federate(images, labels[:-1], partition, 3)
    with pytest.raises(ValueError, match="below the number of images 9"):
        federate(images[:9], labels[:9], partition, 3)


@pytest.mark.parametrize("size", [0, 1, 6, 9])
def test_epoch_order_is_a_permutation_whatever_max_size(size):
    jitted = jax.jit(epoch_order, static_argnames="max_size")
    short, long = (np.asarray(jitted(jax.random.key(0), size, max_size)) for max_size in (9, 33))
    assert long.dtype == np.int32
    assert sorted(long[:size]) == list(range(size))
    np.testing.assert_array_equal(long[:size], short[:size])
    np.testing.assert_array_equal(long[size:], np.arange(size, 33))


def test_epoch_order_is_random():
    keys = jax.random.split(jax.random.key(1), 6000)
    orders = jax.jit(jax.vmap(lambda key: epoch_order(key, 3, 4)))(keys)
    counts = np.unique(np.asarray(orders), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 20.5  # 99.9 % of 5 degrees of freedom


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20])
def test_an_epoch_covers_every_sample_once(arrays, data, batch_size):
    images, labels, partition = arrays
    steps = -(-data.max_size // batch_size) + 1  # one more than any client needs

    def epoch(client_id, key):
        order = epoch_order(key, data.sizes[client_id], data.max_size)
        return jax.lax.map(
            lambda step: gather_batch(data, client_id, order, step, batch_size), jnp.arange(steps)
        )

    keys = jax.random.split(jax.random.key(2), len(SIZES))
    clients = jnp.arange(len(SIZES))
    batches = jax.tree.map(np.asarray, jax.jit(jax.vmap(epoch))(clients, keys))
    for i in range(len(SIZES)):
        mask = batches.mask[i]
        seen = batches.images[i][mask][:, 0, 0, 0]
        assert sorted(seen) == sorted(partition.client(i))
        np.testing.assert_array_equal(batches.images[i][mask], images[seen])
        np.testing.assert_array_equal(batches.labels[i][mask], labels[seen])
        # Full batches come first, and padding repeats the client's own samples.
        assert (mask.ravel() == (np.arange(mask.size) < SIZES[i])).all()
        if SIZES[i]:
            padding = batches.images[i][~mask][:, 0, 0, 0]
            assert set(padding) <= set(partition.client(i))


@pytest.mark.parametrize("multiple_of, expected", [(1, 7), (4, 8), (8, 8)])
def test_pad_batches(arrays, multiple_of, expected):
    images, labels, _ = arrays
    batches = pad_batches(images, labels, 3, multiple_of)
    assert batches.images.shape == (expected, 3, 2, 2, 3)
    assert batches.labels.dtype == np.int32 and batches.mask.shape == (expected, 3)
    np.testing.assert_array_equal(batches.images[batches.mask], images)
    np.testing.assert_array_equal(batches.labels[batches.mask], labels)


def test_pad_batches_refuses_what_does_not_fit(arrays):
    images, labels, _ = arrays
    with pytest.raises(ValueError, match="as many"):
        pad_batches(images, labels[:-1], 3, 1)
    with pytest.raises(ValueError, match="batch_size"):
        pad_batches(images, labels, 0, 1)
