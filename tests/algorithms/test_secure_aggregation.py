"""Secure aggregation: masks cancel, nothing is cut that need not be, and its bytes."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms.aggregators import Sender, Updates
from semanticfl_jax.algorithms.base import Model
from semanticfl_jax.algorithms.secure import masked as secure_masked
from semanticfl_jax.algorithms.secure import secure
from semanticfl_jax.config import (
    AggregationConfig,
    ConfigError,
    ModelConfig,
    PrivacyConfig,
)
from semanticfl_jax.config.compression import SecureConfig
from semanticfl_jax.contexts import AlgorithmContext
from semanticfl_jax.devices.mesh import make_mesh
from semanticfl_jax.federated.client_update import sender_of
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.traffic import make_traffic
from semanticfl_jax.models import Outputs
from semanticfl_jax.randomness import round_keys
from tests.federated.by_hand import host, reported
from tests.federation import (
    CLASSES,
    CONFIG,
    SIZES,
    WITH_DROPOUT,
    algorithm_of,
    make_federation,
    squares,
)


def masked(**settings):
    """A configuration whose sums are masked, if `masks` does not say otherwise."""
    given = AggregationConfig("secure", settings={"secure": settings})
    return dataclasses.replace(WITH_DROPOUT, aggregation=given)


def test_masks_cancel_bit_for_bit_on_any_devices(two_layers):
    models = []
    for devices, chunk, masks in ((1, 1, False), (1, 3, True), (2, 2, True), (8, 1, True)):
        config = masked(bound=2.0, masks=masks)
        run, (state, *rest) = two_layers.round(algorithm_of(config), devices, chunk, config)
        # One round, from the same model: local training differs in its last digits.
        state, metrics = run(state, *rest)
        models.append(host(state.model))
        assert len(reported(metrics)) > 2
    # Within four units of fixed point, which for running statistics are 2^-18.
    for model in models[1:]:
        chex.assert_trees_all_close(model.params, models[0].params, rtol=0, atol=2.0**-22)
        chex.assert_trees_all_close(model.batch_stats, models[0].batch_stats, rtol=0, atol=2.0**-16)


def test_a_masked_update_looks_like_noise_and_the_sum_does_not():
    key, cohort = jax.random.key(4), jnp.array([5, -1, 0, 3, -1, 9], jnp.int32)
    context = AlgorithmContext(CONFIG)
    rng = np.random.default_rng(0)
    given = rng.normal(0, 0.3, (4, 500)).astype(np.float32)
    given[0, 0], given[1, 0] = np.nan, 7.0
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    sums = {}
    for masks in (False, True):
        aggregator = secure(SecureConfig(1.0, 24, masks), context)
        sent = []
        for client, weight, x in zip((5, 0, 3, 9), weights, given, strict=True):
            sender = Sender(jnp.int32(client), weight, key, key, cohort)
            sent.append(aggregator.encode(Model(jnp.asarray(x), ()), (), sender).params)
        stacked = Updates(Model(jnp.stack(sent), ()), jnp.asarray(weights), jnp.ones(4, bool))
        total = aggregator.add(aggregator.init(Model(sent[0], ())), stacked)
        sums[masks] = np.asarray(total.params)
        found = np.asarray(aggregator.finish(total, key).params)
    np.testing.assert_array_equal(sums[True], sums[False])
    # Uniform over the ring, and unlike what it hides.
    ring = np.asarray(jnp.stack(sent), float) / 2**32
    np.testing.assert_allclose(np.histogram(ring, 10, (0, 1))[0] / ring.size, 0.1, atol=0.03)
    assert abs(np.corrcoef(ring[3], given[3])[0, 1]) < 0.15
    bounded = np.clip(np.nan_to_num(given), -1, 1)
    np.testing.assert_allclose(found, weights @ bounded, atol=4 * 2.0**-25 + 1e-7)


class FarStatistics(nn.Module):
    """Logits, and statistics that are far from where they began as soon as a client has trained."""

    num_classes: int

    @nn.compact
    def __call__(self, images, *, train, mask=None):
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(()))
        running = self.variable("batch_stats", "var", lambda: jnp.ones(()))
        if train:
            mean.value, running.value = -7.0 + 0 * mean.value, 60.0 + 0 * running.value
        return Outputs(nn.Dense(self.num_classes)(squares(images)), None)


@pytest.mark.parametrize("masks", [False, True])
def test_running_statistics_are_not_cut_by_the_bound_of_updates(masks):
    far, config = make_federation(FarStatistics(CLASSES), SIZES), masked(masks=masks)
    run, (state, *rest) = far.round(algorithm_of(config), 2, 2, config)
    state, _ = run(state, *rest)
    np.testing.assert_allclose(state.batch_stats["mean"], -7, rtol=1e-5)
    np.testing.assert_allclose(state.batch_stats["var"], 60, rtol=1e-5)


def test_noise_of_the_clients_own_is_not_cut(two_layers):
    private = PrivacyConfig("local", noise_multiplier=2.0, settings={"clip": 0.5})
    config = dataclasses.replace(CONFIG, model=ModelConfig(norm="group"), privacy=private)
    with pytest.raises(ConfigError, match=r"secure.bound must be at least 5.5 with privacy.name=l"):
        dataclasses.replace(config, aggregation=AggregationConfig("secure"))
    wide = AggregationConfig("secure", settings={"secure": {"bound": 5.5}})
    models = []
    for aggregation in (AggregationConfig(), wide):
        each = dataclasses.replace(config, aggregation=aggregation)
        run, (state, *rest) = two_layers.round(algorithm_of(each), config=each)
        models.append(host(run(state, *rest)[0].params))
    chex.assert_trees_all_close(*models, rtol=0, atol=1e-5)
    assert max(np.abs(x).max() for x in jax.tree.leaves(models[0])) > 1
    # Noise that a target asks for is known once it is computed.
    aimed = dataclasses.replace(private, noise_multiplier=None, target_epsilon=1.0)
    wide = dataclasses.replace(config, aggregation=wide, privacy=aimed)
    with pytest.raises(ConfigError, match="bound must be at least"):
        algorithm_of(wide)


def test_secure_traffic_counts_keys_and_shares(two_layers):
    state, data, _, _ = two_layers.start(algorithm_of(CONFIG), make_mesh(1))
    plain = make_traffic(algorithm_of(CONFIG), state, data)
    hidden = make_traffic(algorithm_of(masked()), state, data)
    others = CONFIG.clients_per_round - 1
    assert hidden.up == plain.up + 64 + 96 * others + 32 * others
    assert hidden.down == plain.down + 64 * (others + 1) + 96 * others


def test_masks_differ_from_array_to_array_and_from_round_to_round():
    # Else the server could subtract one from another.
    pair = jnp.array([5, 3], jnp.int32)
    rounds = [round_keys(jax.random.key(0), number) for number in (0, 1)]
    senders = [
        sender_of(jnp.int32(5), jnp.float32(0.5), keys, Broadcast((), jnp.float32(1)))
        for keys in rounds
    ]
    assert all(each.round_key == keys.encoding for each, keys in zip(senders, rounds, strict=True))
    sent = [
        secure_masked([jnp.zeros(50, jnp.uint32)] * 2, each._replace(cohort=pair))
        for each in senders
    ]
    assert len({np.asarray(array).tobytes() for arrays in sent for array in arrays}) == 4
