"""Rounds in which clients drop out, do part of their work, or lack anchors."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semanticfl_jax.algorithms import LossTerm
from semanticfl_jax.config import AvailabilityConfig
from semanticfl_jax.federated.cohort import straggle
from semanticfl_jax.federated.local_step import Broadcast
from semanticfl_jax.federated.local_training import make_local_training
from tests.federation import (
    CLASSES,
    CONFIG,
    FEDAVG,
    MEAN,
    SIZES,
    STD,
    TinyNet,
    algorithm_of,
    make_federation,
)


@pytest.fixture(scope="module")
def federation():
    return make_federation(TinyNet(CLASSES), SIZES)


SENT = Broadcast((), np.float32(CONFIG.learning_rate))


def available(**values):
    return dataclasses.replace(CONFIG, availability=AvailabilityConfig(**values))


def client_key(key, number, client):
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, 1), number), client)


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_average_is_over_those_who_report(federation, chunk):
    run, (state, data, shared, key) = federation.round(config=available(dropout=0.5), chunk=chunk)
    alone = jax.jit(make_local_training(federation.model, FEDAVG, CONFIG, MEAN, STD).alone)
    partial_rounds = 0
    for number in range(3):
        model = jax.tree.map(jnp.copy, state.model)
        state, metrics = run(state, data, shared, key)
        reported = np.asarray(metrics.cohort)[np.asarray(metrics.reported)]
        partial_rounds += len(reported) < CONFIG.clients_per_round
        sizes = np.array([SIZES[client] for client in reported])
        assert metrics.images == CONFIG.local_epochs * sizes.sum()
        trained = [
            alone(model, SENT, shared, data, client, (), client_key(key, number, client)).model
            for client in reported
        ]
        weighted = partial(np.average, axis=0, weights=sizes)
        mean = jax.tree.map(lambda *leaves, average=weighted: average(leaves), *trained)
        chex.assert_trees_all_close(state.model, mean, rtol=1e-5, atol=1e-6)
    assert partial_rounds


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "scaffold"])
def test_a_round_without_reports_changes_nothing(federation, name):
    config = available(dropout=0.999999)
    config = dataclasses.replace(config, algorithm=dataclasses.replace(config.algorithm, name=name))
    run, (state, data, shared, key) = federation.round(algorithm_of(config), config=config)
    before = jax.tree.map(np.array, (state.params, state.batch_stats, state.server, state.clients))
    state, metrics = run(state, data, shared, key)
    assert not metrics.reported.any()
    after = (state.params, state.batch_stats, state.server, state.clients)
    chex.assert_trees_all_equal(before, jax.tree.map(np.array, after))
    assert np.isnan(metrics.train_loss)
    assert state.contacted.sum() == CONFIG.clients_per_round


def test_stragglers_stop_early(federation):
    config = available(straggler_share=0.7, straggler_min_work=0.0)
    local = jax.jit(make_local_training(federation.model, FEDAVG, config, MEAN, STD).alone)
    whole = jax.jit(make_local_training(federation.model, FEDAVG, CONFIG, MEAN, STD).alone)
    _, (state, data, shared, key) = federation.round()
    fewer = 0
    for client, size in enumerate(SIZES):
        own_key = client_key(key, 0, client)
        arguments = (state.model, SENT, shared, data, client, (), own_key)
        result, full = local(*arguments), whole(*arguments)
        epoch = -(-size // CONFIG.batch_size)
        wanted = straggle(
            jax.random.split(own_key, 3)[2], jnp.int32(2 * epoch), config.availability
        )
        assert result.steps == wanted <= full.steps == 2 * epoch
        assert 0 < result.samples <= full.samples == 2 * size
        fewer += int(result.steps < full.steps)
        assert result.last_loss > 0
        if result.steps == full.steps:
            chex.assert_trees_all_equal(result.model, full.model)
    assert fewer


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_term_knows_what_its_client_holds(federation, chunk):
    # A term whose value is a client's holding: the mean training loss tells how many hold it.
    holders = np.arange(len(SIZES)) % 2 == 0

    def loss(inputs):
        return inputs.holds["it"].astype(jnp.float32)

    run, start = federation.round(FEDAVG, chunk=chunk)
    plain = run(*start)[1]
    term = LossTerm("own", loss, shared={"it": jnp.zeros(3)}, holders={"it": holders})
    run, start = federation.round(FEDAVG.with_term(term), chunk=chunk)
    metrics = run(*start)[1]
    cohort = np.asarray(metrics.cohort)
    sizes = np.where(cohort >= 0, np.array(SIZES)[cohort], 0)
    expected = (sizes * holders[cohort]).sum() / sizes.sum()
    np.testing.assert_allclose(metrics.train_loss - plain.train_loss, expected, rtol=1e-4)
