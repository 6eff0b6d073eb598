"""Ragged clients side by side: little padding, rightly counted, and results of one at a time."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.config import AlgorithmConfig, AvailabilityConfig, PartitionConfig
from semanticfl_jax.data.partition import make_partition
from semanticfl_jax.federated.cohort import place_cohort
from semanticfl_jax.federated.sampling import SAMPLERS
from semanticfl_jax.tuning.load import chunk_load
from tests.federation import CONFIG, SoftmaxRegression, algorithm_of, make_federation

LABELS = np.repeat(np.arange(10, dtype=np.int32), 5000)


@pytest.mark.parametrize(
    ("scheme", "batch_size", "chunk", "bound"),
    [
        ("nid1", 64, 16, 0.03),
        ("dirichlet", 16, 4, 0.07),
        # Here 6.5 of 100 rows fill up last batches, which one client at a time has, too.
        ("dirichlet", 64, 4, 0.12),
    ],
)
def test_padding_of_a_skewed_cohort_stays_low(scheme, batch_size, chunk, bound):
    # 20 of 100 clients of CIFAR-10's size; at alpha 0.05 some have 1 image and some 3,000.
    partition = make_partition(PartitionConfig(scheme=scheme, alpha=0.05), LABELS, 100, seed=0)
    federation = make_federation(SoftmaxRegression(10), partition.sizes)
    config = dataclasses.replace(
        CONFIG,
        num_clients=100,
        clients_per_round=20,
        batch_size=batch_size,
        local_epochs=1,
        augmentation=(),
    )
    run, (state, data, shared, key) = federation.round(chunk=chunk, config=config)
    samples = computed = 0
    for number in range(10):
        state, metrics = run(state, data, shared, key)
        samples += float(metrics.images)
        computed += float(metrics.images) / (1 - float(metrics.padding_share))
        if number == 0:
            cohort = np.asarray(SAMPLERS["uniform"](key, 0, partition.sizes, 20))
            expected = rows(partition.sizes[cohort], chunk, batch_size)
            share = 1 - partition.sizes[cohort].sum() / expected
            assert float(metrics.padding_share) == pytest.approx(share, abs=1e-5)
    assert 0 < 1 - samples / computed < bound


@pytest.mark.parametrize(("devices", "chunk"), [(1, 1), (1, 3), (2, 4), (4, 8)])
def test_the_load_of_the_busiest_device_is_foreseen(devices, chunk):
    sizes = np.random.default_rng(1).integers(1, 400, 30)
    everyone = place_cohort(jnp.arange(30), jnp.asarray(sizes), 16, devices, chunk)
    of_devices = np.asarray(everyone).reshape(devices, -1)
    busiest = max(rows(sizes[own[own >= 0]], chunk, 16) for own in of_devices)
    even = (-(-sizes // 16) * 16).sum() / devices
    load = chunk_load(sizes, 30, 16, devices, chunk)
    assert sum(width * steps for width, steps in load.items()) == pytest.approx(busiest / even)


def rows(sizes, chunk, batch_size):
    """Rows computed for a cohort, step by step: the narrowest half that holds who still trains."""
    steps = np.sort(-(-sizes // batch_size))[::-1]
    steps = np.pad(steps, (0, -len(steps) % chunk)).reshape(-1, chunk)
    total = 0
    for step in range(steps.max()):
        for active in (steps > step).sum(1):
            width = chunk
            while width and width // 2 >= active:
                width //= 2
            total += width
    return total * batch_size


@pytest.mark.parametrize("chunk", [3, 4])
def test_states_come_back_to_the_clients_they_belong_to(chunk):
    # Stragglers and dropouts change the order of a device's clients from that of their sizes.
    config = dataclasses.replace(
        CONFIG,
        augmentation=(),
        algorithm=AlgorithmConfig(name="scaffold"),
        availability=AvailabilityConfig(dropout=0.3, straggler_share=0.5),
    )
    federation = make_federation(SoftmaxRegression(4), (3, 5, 8, 13, 1, 20, 10))
    results = []
    for wide, devices in ((1, 1), (chunk, 1), (chunk, 2)):
        run, (state, data, shared, key) = federation.round(
            algorithm_of(config), devices=devices, chunk=wide, config=config
        )
        for _ in range(3):
            state, metrics = run(state, data, shared, key)
        results.append(jax.tree.map(np.array, (state, metrics.train_loss, metrics.images)))
    for other in results[1:]:
        chex.assert_trees_all_close(other, results[0], rtol=1e-5, atol=1e-6)


def test_a_batch_is_no_larger_than_the_largest_client():
    federation = make_federation(SoftmaxRegression(4), (3, 5, 8, 13, 1, 20, 10))
    results = []
    for batch_size in (20, 64):
        config = dataclasses.replace(CONFIG, batch_size=batch_size)
        run, start = federation.round(config=config)
        results.append(jax.tree.map(np.array, run(*start)))
    chex.assert_trees_all_equal(*results)
